"""Longest n-gram that is masked together: section 4.1 of the paper (it takes 3).

    python -m launch.sweep --sweep=configs/sweeps/ngram.py:base --workdir=runs/ngram \
        --override pretrain.data.path=CORPUS --override mnli.data.path=GLUE/MNLI …

base differs in the longest n-gram; p(n) ∝ 1/n up to it. No published averages are at hand. Longer
n-grams are harder to fill, so that MLM accuracies do not compare between members.
"""

from configs.changes import Change, Sweep
from configs.sweeps.common import ablation


def get_sweep(scale: str = 'base') -> Sweep:
    field = 'pretrain.pretraining.max_ngram'
    members = [Change(f'ngram{number}', {field: number}) for number in (1, 2, 3)]
    return ablation(scale, 'N-gram masks', 'base', members, members)
