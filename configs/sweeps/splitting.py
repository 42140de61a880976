"""One sentence into two, by an encoder that shares its layer with the decoder: WikiSplit.

    python -m launch.sweep --sweep=configs/sweeps/splitting.py:mini --workdir=runs/splitting \
        --seeds=3 --override finetune.init_from=runs/encoder \
        --override splitting.data.train=pairs.tsv --override splitting.data.validation=held-out.tsv

What pretraining is worth: both members have the shape and the vocabulary of the checkpoint. base is
the config `splitting`; mini trains for minutes on two cores. Published for BERT-base on a million
pairs, SARI: random weights 61.7, encoder and decoder that share BERT's weights 63.5.
"""

from configs.changes import Change, FieldValue, Sweep
from configs.sweeps.common import GENERATION_MINI

MINI: dict[str, FieldValue] = {
    **GENERATION_MINI,
    'task.max_length': 96,
    'task.max_target_length': 96,
    'task.num_generated': 500,
}


def get_sweep(scale: str = 'base') -> Sweep:
    """Pretrained and random weights."""
    if scale not in ('base', 'mini'):
        raise ValueError(f'there is no scale {scale!r}; there are base and mini')
    common = MINI if scale == 'mini' else {}
    return Sweep(
        title='One sentence into two' + (', mini' if scale == 'mini' else ''),
        pretrain='',
        members=[
            Change('pretrained', {}),
            Change('random-weights', {'finetune.from_scratch': True}),
        ],
        tasks=('splitting',),
        common={f'splitting.{field}': value for field, value in common.items()},
        columns={
            'splitting.loss': 'loss',
            'splitting.sari': 'SARI',
            'splitting.bleu': 'BLEU',
            'splitting.exact_match': 'as the reference',
        },
        published={'random-weights': {'SARI': 61.7}, 'pretrained': {'SARI': 63.5}},
        source='Rothe et al., arXiv 1907.12461, BERT-base on a million pairs',
    )
