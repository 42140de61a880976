"""Groups of layers, each with parameters of its own: section 3.1 of the paper.

    python -m launch.sweep --sweep=configs/sweeps/groups.py:base --workdir=runs/groups \
        --override pretrain.data.path=CORPUS --override mnli.data.path=GLUE/MNLI …

base differs in the number of groups; 1 is ALBERT. No published averages are at hand.
"""

from configs.changes import Change, Sweep
from configs.sweeps.common import ablation


def groups(*numbers: int) -> list[Change]:
    field = 'pretrain.model.num_hidden_groups'
    return [Change(f'groups{number}', {field: number}) for number in numbers]


def get_sweep(scale: str = 'base') -> Sweep:
    return ablation(scale, 'Groups of layers', 'base', groups(1, 2, 4, 6, 12), groups(1, 3))
