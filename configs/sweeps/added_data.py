"""More text: section 4.8 of the paper (Wikipedia and books, then XLNet's and RoBERTa's data too).

    python -m launch.sweep --sweep=configs/sweeps/added_data.py:base --workdir=runs/added_data \
        --override books/pretrain.data.path=CORPUS --override added/pretrain.data.path=LARGER …

base differs in its corpus, which the overrides name; both need one vocabulary (prepare the larger
one with --vocabulary=CORPUS/vocabulary.model). No published averages are at hand.
"""

from configs.changes import Change, Sweep
from configs.sweeps.common import ablation


def get_sweep(scale: str = 'base') -> Sweep:
    members = [
        Change('books', {'pretrain.data.path': 'runs/corpus'}),
        Change('added', {'pretrain.data.path': 'runs/corpus_added'}),
    ]
    return ablation(scale, 'Added data', 'base', members, members)
