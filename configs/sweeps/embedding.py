"""Size of the embedding E, with and without sharing: Table 3 of the paper, section 4.4.

    python -m launch.sweep --sweep=configs/sweeps/embedding.py:base --workdir=runs/embedding \
        --override pretrain.data.path=CORPUS --override mnli.data.path=GLUE/MNLI …

base differs in E and in what layers share. Published averages over five tasks:

| E | not shared | all shared |
|---|---|---|
| 64 | 81.3 | 79.0 |
| 128 | 81.7 | 80.1 |
| 256 | 81.8 | 79.6 |
| 768 | 82.3 | 79.8 |
"""

from configs.changes import Change, Sweep, product
from configs.sweeps.common import ablation, averages

PUBLISHED = averages(
    none_e64=81.3, none_e128=81.7, none_e256=81.8, none_e768=82.3,
    all_e64=79.0, all_e128=80.1, all_e256=79.6, all_e768=79.8,
)  # fmt: skip


def sizes(*values: int) -> list[Change]:
    return [Change(f'e{size}', {'pretrain.model.embedding_size': size}) for size in values]


def get_sweep(scale: str = 'base') -> Sweep:
    sharing = [Change(name, {'pretrain.model.sharing': name}) for name in ('none', 'all')]
    base = product(sharing, sizes(64, 128, 256, 768))
    # From an eighth of mini's H up to all of it; the paper's rows are of other sizes.
    mini = sizes(16, 32, 64, 128)
    return ablation(scale, 'Embedding size', 'base', base, mini, PUBLISHED, 'Table 3')
