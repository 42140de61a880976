"""Hidden size at three layers: appendix A.1 of the paper.

    python -m launch.sweep --sweep=configs/sweeps/width.py:base --workdir=runs/width \
        --override pretrain.data.path=CORPUS --override mnli.data.path=GLUE/MNLI …

large with three layers differs in H (heads of 64, four times H inside). Published averages over
five tasks: 1024 71.2, 2048 74.6, 4096 76.3, 6144 74.0.
"""

from configs.changes import Change, Sweep
from configs.sweeps.common import ablation, averages

PUBLISHED = averages(h1024=71.2, h2048=74.6, h4096=76.3, h6144=74.0)


def widths(head_size: int, *values: int) -> list[Change]:
    return [
        Change(
            f'h{size}',
            {
                'pretrain.model.num_hidden_layers': 3,
                'pretrain.model.hidden_size': size,
                'pretrain.model.intermediate_size': 4 * size,
                'pretrain.model.num_attention_heads': size // head_size,
            },
        )
        for size in values
    ]


def get_sweep(scale: str = 'base') -> Sweep:
    base, mini = widths(64, 1024, 2048, 4096, 6144), widths(32, 64, 128, 256)
    return ablation(scale, 'Width', 'large', base, mini, PUBLISHED, 'appendix A.1')
