"""Fine-tuning: `configs/finetune.py:TASK`, the paper's Table 14 (section 4.8 and appendix A.4).

    python -m albert_jax.finetune --config=configs/finetune.py:sst2 --workdir=runs/sst2 \
        --config.init_from=runs/base --config.data.path=GLUE/SST-2

The paper takes the best checkpoint on dev, one every 100 steps, and the median of five runs
(`--config.seeds=5`); RTE, STS-B and MRPC start from an MNLI checkpoint (`init_from` takes that
too). Batch sizes and lengths are the paper's.
`python -m albert_jax.finetune --help` lists every field with its default.
"""

from ml_collections import ConfigDict

from albert_jax.runs.defaults import defaults
from albert_jax.runs.runs import FinetuneRun

# task: (learning rate, batch, dropout of the encoder, steps, warmup steps, length)
TABLE_14 = {
    'cola': (1e-5, 16, 0.0, 5336, 320, 512),
    'stsb': (2e-5, 16, 0.0, 3598, 214, 512),
    'sst2': (1e-5, 32, 0.0, 20935, 1256, 512),
    'mnli': (3e-5, 128, 0.0, 10000, 1000, 512),
    'qnli': (1e-5, 32, 0.0, 33112, 1986, 512),
    'qqp': (5e-5, 128, 0.1, 14000, 1000, 512),
    'rte': (3e-5, 32, 0.1, 800, 200, 512),
    'mrpc': (2e-5, 32, 0.0, 800, 200, 512),
    'wnli': (2e-5, 16, 0.1, 2000, 250, 512),
    'squad1': (5e-5, 48, 0.0, 3649, 365, 384),
    'squad2': (3e-5, 48, 0.0, 8144, 814, 512),
    'race': (2e-5, 32, 0.1, 12000, 1000, 512),
}
# Not in the paper: BERT's habits for tagging, and a start for one's own data.
OTHERS = {
    'ner': (3e-5, 32, 0.1, 1500, 150, 256),
    'upos': (3e-5, 32, 0.1, 1200, 120, 256),
    'roles': (5e-5, 32, 0.1, 1500, 150, 256),
    'tags': (3e-5, 32, 0.1, 1200, 120, 256),
    'classification': (2e-5, 32, 0.1, 1000, 100, 256),
    'multilabel': (2e-5, 32, 0.1, 1000, 100, 256),
    'regression': (2e-5, 32, 0.1, 1000, 100, 256),
}
# From text to text, with the usual choices for small Transformers.
SEQ2SEQ = {
    'translation': (5e-4, 64, 0.1, 20000, 2000, 128),
    'summarization': (2e-4, 32, 0.1, 20000, 2000, 512),
    'splitting': (2e-4, 32, 0.1, 5000, 500, 128),
    'generation': (2e-4, 32, 0.1, 10000, 1000, 128),
    'multi30k': (3e-3, 64, 0.2, 5000, 200, 64),
}
# What source and target are called: WikiSplit's files have two columns and no header.
SIDES = {'translation': ('en', 'de'), 'multi30k': ('en', 'de'), 'splitting': ('0', '1')}


def get_config(task: str = 'sst2') -> ConfigDict:
    """The config of a task."""
    named = TABLE_14 | OTHERS | SEQ2SEQ
    if task not in named:
        raise ValueError(f'there is no task {task!r}; there are {", ".join(named)}')
    learning_rate, batch_size, dropout, num_steps, warmup_steps, length = named[task]
    config = defaults(FinetuneRun)
    config.model.update(
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    config.task.update(name=task, max_length=length)
    config.optimizer.update(learning_rate=learning_rate, warmup_steps=warmup_steps)
    config.loop.update(
        num_steps=num_steps,
        batch_size=batch_size,
        log_every=50,
        eval_every=100,
        checkpoint_every=100,
        keep_last=1,
    )
    if task in SEQ2SEQ:
        source, target = SIDES.get(task, ('source', 'target'))
        config.task.update(source=source, target=target, generate_every=1000)
        config.decoding.num_beams = 4
        config.loop.update(eval_every=500, checkpoint_every=500)
        config.optimizer.bias_correction = True
    if task == 'multi30k':
        _make_multi30k(config)
    return config


def _make_multi30k(config: ConfigDict) -> None:
    """A translator of short sentences from random weights (docs/RESULTS.md).

    Three layers of 256 in encoder and decoder, none shared, with pre-norm and Muon. Dropout in
    attention is half of that of the hidden states.
    """
    config.from_scratch = True
    config.model.update(
        size='albert_base',
        sharing='none',
        embedding_size=256,
        hidden_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
        norm_placement='pre',
        attention_probs_dropout_prob=0.1,
    )
    config.decoder.update(decoder_sharing='random', cross_attention='per_layer')
    config.task.update(name='translation', max_target_length=64, num_generated=200)
    config.optimizer.update(name='muon', muon_learning_rate=0.01, beta2=0.98)
    config.loop.checkpoint_every = 250
