"""Sentence loss, none, NSP or SOP: Table 5 of the paper, section 4.6.

    python -m launch.sweep --sweep=configs/sweeps/sentence_loss.py:base \
        --workdir=runs/sentence_loss --override pretrain.data.path=CORPUS …

base differs in the sentence loss. Published accuracies of each on the three tasks themselves, and
averages over five tasks:

| | MLM | NSP | SOP | Avg |
|---|---|---|---|---|
| none | 54.9 | 52.4 | 53.3 | 79.0 |
| NSP | 54.5 | 90.5 | 52.0 | 79.2 |
| SOP | 54.0 | 78.9 | 86.5 | 80.1 |
"""

from configs.changes import Change, Sweep
from configs.sweeps.common import ablation

OWN = {
    'intrinsic.mlm_accuracy': 'MLM',
    'intrinsic.nsp_accuracy': 'NSP',
    'intrinsic.sop_accuracy': 'SOP',
}
PUBLISHED = {
    'none': {'MLM': 54.9, 'NSP': 52.4, 'SOP': 53.3, 'Avg': 79.0},
    'nsp': {'MLM': 54.5, 'NSP': 90.5, 'SOP': 52.0, 'Avg': 79.2},
    'sop': {'MLM': 54.0, 'NSP': 78.9, 'SOP': 86.5, 'Avg': 80.1},
}


def get_sweep(scale: str = 'base') -> Sweep:
    losses = [Change(name, {'pretrain.pretraining.sentence_loss': name}) for name in PUBLISHED]
    return ablation(scale, 'Sentence loss', 'base', losses, losses, PUBLISHED, 'Table 5', OWN)
