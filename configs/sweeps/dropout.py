"""Dropout on and off: section 4.8 of the paper (v2 is trained without).

    python -m launch.sweep --sweep=configs/sweeps/dropout.py:base --workdir=runs/dropout \
        --override pretrain.data.path=CORPUS --override mnli.data.path=GLUE/MNLI …

xxlarge differs in its dropout. No published averages are at hand.
"""

from configs.changes import Change, Sweep
from configs.sweeps.common import ablation


def dropout(rate: float) -> dict[str, float]:
    names = ('hidden_dropout_prob', 'attention_probs_dropout_prob')
    return {f'pretrain.model.{name}': rate for name in names}


def get_sweep(scale: str = 'base') -> Sweep:
    members = [Change('without', dropout(0.0)), Change('with', dropout(0.1))]
    return ablation(scale, 'Dropout', 'xxlarge', members, members)
