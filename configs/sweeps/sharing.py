"""Which parameters layers share: Table 4 of the paper, section 4.5.

    python -m launch.sweep --sweep=configs/sweeps/sharing.py:base --workdir=runs/sharing \
        --override pretrain.data.path=CORPUS --override mnli.data.path=GLUE/MNLI …

base differs in what is shared and in E. Published averages over five tasks (parameters):

| | E = 768 | E = 128 |
|---|---|---|
| all shared | 79.8 (31 M) | 80.1 (12 M) |
| attention shared | 81.6 (83 M) | 81.7 (64 M) |
| FFN shared | 79.5 (57 M) | 80.2 (38 M) |
| not shared | 82.3 (108 M) | 81.6 (89 M) |
"""

from configs.changes import Change, Sweep, product
from configs.sweeps.common import ablation, averages

PUBLISHED = averages(
    e768_all=79.8, e768_attention=81.6, e768_ffn=79.5, e768_none=82.3,
    e128_all=80.1, e128_attention=81.7, e128_ffn=80.2, e128_none=81.6,
)  # fmt: skip


def get_sweep(scale: str = 'base') -> Sweep:
    names = ('all', 'attention', 'ffn', 'none')
    sharing = [Change(name, {'pretrain.model.sharing': name}) for name in names]
    embedding = [Change(f'e{size}', {'pretrain.model.embedding_size': size}) for size in (768, 128)]
    # mini's E is 64, half of its H; beside it stand the paper's numbers at E = 128.
    published = {name: PUBLISHED[f'e128-{name}'] for name in names}
    return ablation(
        scale, 'Sharing of parameters', 'base', product(embedding, sharing), sharing, PUBLISHED,
        'Table 4', mini_published=published,
    )  # fmt: skip
