"""What each part of the recipe of today is worth: taken out of it, and put into the paper's.

    python -m launch.sweep --sweep=configs/sweeps/recipe.py:mini --workdir=runs/recipe --seeds=3 \
        --override pretrain.data.path=CORPUS

modern is configs/pretrain.py:mini+modern, paper is configs/pretrain.py:mini; every other member
differs from one of them in one thing, and trains for as many FLOPs as modern, Muon's own among
them. `compute` is the share of the paper's compute at which a member has come to the paper's final
loss. There are no published numbers.
"""

from configs.changes import Change, FieldValue, Sweep

Fields = dict[str, FieldValue]

COLUMNS = {
    'parameters': 'parameters',
    'flops': 'FLOPs',
    'intrinsic.unpaired_mlm_loss': 'MLM loss',
    'intrinsic.unpaired_mlm_accuracy': 'MLM',
    'pairs.word_l2r': 'BLiMP',
    'intrinsic.sop_accuracy': 'SOP',
    'compute_to_reach': 'compute',
}
MUON: Fields = {
    'optimizer.name': 'muon',
    'optimizer.learning_rate': 0.003,
    'optimizer.weight_decay': 0.0,
    'optimizer.beta2': 0.98,
}
LAMB: Fields = {
    'optimizer.name': 'lamb',
    'optimizer.learning_rate': 0.01,
    'optimizer.weight_decay': 0.01,
    'optimizer.beta2': 0.999,
}
ADAMW: Fields = {**LAMB, 'optimizer.name': 'adamw', 'optimizer.learning_rate': 0.001}
# One thing exchanged in `modern`. The steps are those that take its FLOPs.
OUT: dict[str, Fields] = {
    'lamb': {**LAMB, 'loop.num_steps': 2787},
    'adamw': {**ADAMW, 'loop.num_steps': 2787},
    'masked15': {'pretraining.masked_fraction': 0.15, 'loop.num_steps': 2503},
    'masked45-15': {'pretraining.final_masked_fraction': 0.15},
    'learned-positions': {'model.position_encoding': 'learned'},
    'post-norm': {'model.norm_placement': 'post'},
    'gated': {'model.is_gated': True, 'loop.num_steps': 2380},
    'fan-in': {'model.kernel_initializer': 'fan_in'},
    'batch32': {
        'optimizer.warmup_steps': 33,
        'loop.batch_size': 32,
        'loop.num_steps': 670,
        'loop.log_every': 25,
        'loop.eval_every': 50,
        'loop.checkpoint_every': 50,
        'loop.num_eval_batches': 16,
    },
    'wsd': {'optimizer.schedule': 'wsd', 'optimizer.num_decay_steps': 600},
    'sop': {'pretraining.sentence_loss': 'sop', 'pretraining.short_fraction': 0.1},
    'not-shared': {'model.sharing': 'none', 'loop.num_steps': 1481},
}
# What makes configs/pretrain.py:mini of its parent here, mini+modern.
PAPER: Fields = {
    **LAMB,
    'model.position_encoding': 'learned',
    'model.norm_placement': 'post',
    'pretraining.masked_fraction': 0.15,
    'pretraining.sentence_loss': 'sop',
    'pretraining.short_fraction': 0.1,
    'optimizer.warmup_steps': 60,
    'loop.batch_size': 32,
    'loop.num_steps': 732,
    'loop.log_every': 25,
    'loop.eval_every': 50,
    'loop.checkpoint_every': 50,
    'loop.num_eval_batches': 16,
}
# One thing exchanged in it, likewise.
IN: dict[str, Fields] = {
    'muon': {**MUON, 'loop.num_steps': 702},
    'masked45': {'pretraining.masked_fraction': 0.45, 'loop.num_steps': 697},
    'rope': {'model.position_encoding': 'rope'},
    'batch8': {
        'optimizer.warmup_steps': 240,
        'loop.batch_size': 8,
        'loop.num_steps': 2927,
        'loop.log_every': 100,
        'loop.eval_every': 200,
        'loop.checkpoint_every': 200,
        'loop.num_eval_batches': 64,
    },
    'no-sop': {'pretraining.sentence_loss': 'none', 'pretraining.short_fraction': 0.0},
}


def get_sweep(scale: str = 'mini') -> Sweep:
    """The two recipes, and each with one thing exchanged."""
    if scale != 'mini':
        raise ValueError(f'there is no scale {scale!r}; there is mini')
    members: dict[str, Fields] = {'paper': PAPER, 'modern': {}}
    members |= {f'modern-{name}': fields for name, fields in OUT.items()}
    members |= {f'paper-{name}': {**PAPER, **fields} for name, fields in IN.items()}
    return Sweep(
        title="The recipe of today and the paper's, mini",
        pretrain='configs/pretrain.py:mini+modern',
        members=[
            Change(name, {f'pretrain.{field}': value for field, value in fields.items()})
            for name, fields in members.items()
        ],
        columns=COLUMNS,
        reference='paper',
    )
