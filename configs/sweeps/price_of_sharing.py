"""What sharing costs: one layer gone through r times against r layers, at three widths.

    python -m launch.sweep --sweep=configs/sweeps/price_of_sharing.py:mini --workdir=runs/price \
        --seeds=2 --override pretrain.data.path=CORPUS --override sst2.data.path=GLUE/SST-2 \
        --override pairs.path=blimp.jsonl --override pairs.limit_per_group=15
    python -m launch.report runs/price --recurrence

Of every group of BLiMP 15 pairs are scored: the 18th of one has 63 pieces, with [CLS] and [SEP] one
more than `mini` has positions.

Of every width there are a layer that is used r = 1, 2, 4 and 8 times, and r layers with weights of
their own, whose forward and backward pass take the same FLOPs (Muon's for more kernels come on
top); all members see the same text. The report fits the recurrence
exponent φ: r uses are worth r^φ times the parameters, 0 for nothing and 1 for layers of their own.
Decoders were found at 0.46 (arXiv 2604.21106). The relaxations stand beside the middle width at
r = 4.
"""

from configs.changes import Change, FieldValue, Sweep, chain

LOOPS = (1, 2, 4, 8)
# Widths with their heads; the feed-forward is four times as wide.
WIDTHS = {'mini': {64: 2, 128: 4, 192: 6}, 'base': {512: 8, 768: 12, 1024: 16}}
PARENTS = {'mini': 'configs/pretrain.py:mini+modern', 'base': 'configs/pretrain.py:base+modern'}
COLUMNS = {
    'parameters': 'parameters',
    'flops': 'FLOPs',
    'intrinsic.unpaired_mlm_loss': 'MLM loss',
    'intrinsic.unpaired_mlm_accuracy': 'MLM',
    'pairs.word_l2r': 'BLiMP',
    'sst2.accuracy': 'SST-2',
}
SST2: dict[str, FieldValue] = {
    'sst2.loop.num_steps': 400,
    'sst2.loop.eval_every': 200,
    'sst2.loop.checkpoint_every': 200,
    'sst2.optimizer.warmup_steps': 40,
    'sst2.optimizer.learning_rate': 5e-4,
    'sst2.optimizer.bias_correction': True,
    'sst2.task.max_length': 64,
}
# Four layers deep, all of them.
RELAXATIONS: dict[str, dict[str, FieldValue]] = {
    'core2': {'num_loops': 2},
    'prelude-coda': {'num_hidden_layers': 2, 'num_prelude_layers': 1, 'num_coda_layers': 1},
    'own-ffn': {'sharing': 'attention'},
    'adapters8': {'depth_adapter_rank': 8},
    'norms': {'depth_norms': True},
    'embedding': {'depth_embedding': True},
    'all-of-depth': {'depth_adapter_rank': 8, 'depth_norms': True, 'depth_embedding': True},
}


def get_sweep(scale: str = 'mini') -> Sweep:
    """Loops and layers at three widths, and what lies between the two."""
    if scale not in WIDTHS:
        raise ValueError(f'there is no scale {scale!r}; there are {" and ".join(WIDTHS)}')
    widths = [
        _member(f'w{width}', hidden_size=width, num_attention_heads=heads,
                intermediate_size=4 * width)
        for width, heads in WIDTHS[scale].items()
    ]  # fmt: skip
    loops = [_member(f'loop{r}', num_hidden_layers=r) for r in LOOPS]
    layers = [_member(f'own{r}', num_hidden_layers=r, sharing='none') for r in LOOPS if r > 1]
    middle = widths[1]
    relaxed = [
        _member(f'loop4-{name}', **({'num_hidden_layers': 4} | fields))
        for name, fields in RELAXATIONS.items()
    ]
    return Sweep(
        title=f'The price of sharing, {scale}',
        pretrain=PARENTS[scale],
        members=chain(
            *([_beside(width, depth) for depth in (*loops, *layers)] for width in widths),
            [_beside(middle, change) for change in relaxed],
        ),
        tasks=('sst2',),
        common=SST2 if scale == 'mini' else {},
        columns=COLUMNS,
    )


def _member(name: str, **fields: FieldValue) -> Change:
    return Change(name, {f'pretrain.model.{field}': value for field, value in fields.items()})


def _beside(first: Change, second: Change) -> Change:
    return Change(f'{first.name}-{second.name}', {**first.fields, **second.fields})
