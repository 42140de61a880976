"""Number of layers, each net started from the shallower one: appendix A.1 of the paper.

    python -m launch.sweep --sweep=configs/sweeps/depth.py:base --workdir=runs/depth \
        --override pretrain.data.path=CORPUS --override mnli.data.path=GLUE/MNLI …

large differs in its depth; the weights of the shallower net, which are of the same shapes, are what
the deeper one starts from. Published averages over five tasks: 1 layer 52.9, 3 71.2, 6 77.2,
12 81.5, 24 82.1, 48 81.8.
"""

from configs.changes import Change, Sweep, each_from_the_last
from configs.sweeps.common import ablation, averages

PUBLISHED = averages(
    layers1=52.9, layers3=71.2, layers6=77.2, layers12=81.5, layers24=82.1, layers48=81.8
)


def depths(*numbers: int) -> list[Change]:
    field = 'pretrain.model.num_hidden_layers'
    return each_from_the_last(Change(f'layers{number}', {field: number}) for number in numbers)


def get_sweep(scale: str = 'base') -> Sweep:
    return ablation(
        scale, 'Depth', 'large', depths(1, 3, 6, 12, 24, 48), depths(1, 3, 6, 12), PUBLISHED,
        'appendix A.1',
    )  # fmt: skip
