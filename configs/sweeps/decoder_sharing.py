"""What a decoder shares with its encoder, from a checkpoint and from random weights: translation.

    python -m launch.sweep --sweep=configs/sweeps/decoder_sharing.py:mini --workdir=runs/decoders \
        --override finetune.init_from=runs/encoder \
        --override translation.data.train=multi30k.train \
        --override translation.data.validation=multi30k.val

base is the config `translation`; mini trains for minutes on two cores. All members have the shape
and the vocabulary of the checkpoint. Published for BERT-base on WMT14, English to German: random
weights 26.0, a decoder with random weights of its own 30.1, one that shares the encoder's 29.6.
"""

from configs.changes import Change, FieldValue, Sweep
from configs.sweeps.common import GENERATION_MINI

SHARINGS = ('encoder', 'copy', 'random')
MINI: dict[str, FieldValue] = {
    **GENERATION_MINI,
    'task.max_length': 64,
    'task.max_target_length': 64,
    # All of Multi30k's.
    'task.num_generated': 1014,
}


def get_sweep(scale: str = 'base') -> Sweep:
    """Random weights throughout, and the three decoders on a pretrained encoder."""
    if scale not in ('base', 'mini'):
        raise ValueError(f'there is no scale {scale!r}; there are base and mini')
    own: dict[str, FieldValue] = {
        'finetune.decoder.decoder_sharing': 'random',
        'finetune.from_scratch': True,
    }
    common = MINI if scale == 'mini' else {}
    return Sweep(
        title='What a decoder shares with its encoder' + (', mini' if scale == 'mini' else ''),
        pretrain='',
        members=[
            Change('random-weights', own),
            *(Change(name, {'finetune.decoder.decoder_sharing': name}) for name in SHARINGS),
        ],
        tasks=('translation',),
        common={f'translation.{field}': value for field, value in common.items()},
        columns={
            'translation.loss': 'loss',
            'translation.bleu': 'BLEU',
            'translation.chrf': 'chrF',
        },
        published={
            'random-weights': {'BLEU': 26.0},
            'encoder': {'BLEU': 29.6},
            'random': {'BLEU': 30.1},
        },
        source='Rothe et al., arXiv 1907.12461, BERT-base on WMT14',
    )
