"""Pretraining runs of the paper (arXiv 1909.11942) and a tiny one for a laptop.

    python -m albert_jax.pretrain --config=configs/pretrain.py:base --workdir=runs/base \
        --config.data.path=CORPUS

Names: base, large, xlarge, xxlarge (Table 1 of the paper; 125k steps of 4096 sequences of 512 with
LAMB, section 4.1), bert_base (the paper's baseline: no sharing, no factorised embedding, NSP), tiny
(one CPU, minutes), mini (the parent of the ablations that two cores can do), and modern, which is
base+modern. After a name, @BATCH sets another batch size with the learning rate and the steps to
match (base@32768), +modern takes a recipe of today in place of the paper's (mini+modern), and
+short trains nine tenths of the steps on sequences of a quarter of the length (base+short, or
base@1024+modern+short).

`python -m albert_jax.pretrain --help` lists every field with its default.

Published averages over SQuAD, MNLI, SST-2 and RACE after these 125k steps (Table 2): base 80.1,
large 82.4, xlarge 85.5, xxlarge 88.7, BERT-base 82.3.
"""

from ml_collections import ConfigDict

from albert_jax.runs.defaults import defaults
from albert_jax.runs.runs import PretrainRun

ADDITIONS = ('modern', 'short')
NAMES = ('tiny', 'mini', 'base', 'large', 'xlarge', 'xxlarge', 'bert_base', 'modern')


def get_config(name: str = 'base') -> ConfigDict:
    """The config of the named run; NAME@BATCH is it at another batch size, NAME+modern with a
    recipe of today, NAME+short with a first phase on short sequences."""
    name, *additions = name.split('+')
    name, at, batch_size = name.partition('@')
    if name not in NAMES:
        raise ValueError(f'there is no config {name!r}; choose among {", ".join(NAMES)}.')
    if name == 'modern':
        name, additions = 'base', ['modern', *additions]
    for addition in additions:
        if addition not in ADDITIONS:
            known = ' and '.join(f'+{known}' for known in ADDITIONS)
            raise ValueError(f'there is no addition {addition!r} to a config; there are {known}.')
        if additions.count(addition) > 1:
            raise ValueError(f'+{addition} is there more than once.')
    config = _named(name)
    if 'modern' in additions:
        _make_modern(config)
    if at:
        if not batch_size.isdigit():
            raise ValueError(f'{batch_size!r} is no batch size; write NAME@4096.')
        scale_batch(config, int(batch_size))
    if 'short' in additions:
        # Nine tenths of the steps, as BERT's (arXiv 1810.04805, appendix A.2).
        config.pretraining.short_phase_steps = config.loop.num_steps * 9 // 10
        config.pretraining.short_phase_length = config.pretraining.sequence_length // 4
    return config


def scale_batch(config: ConfigDict, batch_size: int) -> None:
    """Another batch size for the same number of sequences, by LAMB's rules (arXiv 1904.00962).

    The learning rate goes with the square root of the batch, and the warmup keeps its number of
    steps, so that its share of the run goes with the batch (Table 4 there: 1/320 of the steps at
    512, 1/5 at 32k). Meant for 256 to 32,768. With Muon the rates go alike, and the warmup keeps
    its share of the run.
    """
    factor = batch_size / config.loop.batch_size
    config.loop.batch_size = batch_size
    config.loop.num_steps = round(config.loop.num_steps / factor)
    optimizer = config.optimizer
    optimizer.learning_rate = optimizer.learning_rate * factor**0.5
    if optimizer.name == 'muon':
        optimizer.muon_learning_rate = optimizer.muon_learning_rate * factor**0.5
        optimizer.warmup_steps = round(optimizer.warmup_steps / factor)
    if config.optimizer.warmup_steps >= config.loop.num_steps:
        raise ValueError(f'a batch of {batch_size} leaves fewer steps than the warmup has.')


def _named(name: str) -> ConfigDict:
    config = defaults(PretrainRun)  # ALBERT-base as in the paper
    if name == 'tiny':
        _make_tiny(config)
    elif name == 'mini':
        _make_mini(config)
    elif name == 'bert_base':
        config.model.size = 'bert_base'
        config.pretraining.sentence_loss = 'nsp'
    else:
        config.model.size = f'albert_{name}'
    if name in ('base', 'large', 'xlarge'):
        # v1; its xxlarge and all of v2 train without dropout.
        config.model.hidden_dropout_prob = 0.1
        config.model.attention_probs_dropout_prob = 0.1
    return config


def _make_modern(config: ConfigDict) -> None:
    """A recipe of today in place of the paper's, for a model of any size.

    Rotary positions and norms before the sublayers, as in ModernBERT (arXiv 2412.13663); no
    dropout, as in ALBERT's version 2. Muon for the kernels and AdamW for the rest, 45 % masked, no
    sentence loss, no short sequences, and a quarter of the batch for as many sequences. At `mini`
    it comes to the loss of the paper's recipe with a fifth of the compute; docs/RESULTS.md takes it
    apart. Pre-norm is for what is deeper than `mini`: 24 layers learn next to nothing without it.
    The rates were chosen for `tiny` and `mini`; Muon's is made not to depend on the width. Held-out
    masks are the default ones.
    """
    config.model.update(
        position_encoding='rope',
        norm_placement='pre',
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.pretraining.update(
        masked_fraction=0.45,
        eval_masked_fraction=0.15,
        sentence_loss='none',
        short_fraction=0.0,
    )
    loop = config.loop
    loop.batch_size //= 4
    # As many sequences between two lines of the log, two evaluations, and in each.
    for name in ('num_steps', 'log_every', 'eval_every', 'checkpoint_every', 'num_eval_batches'):
        loop[name] = 4 * loop[name]
    config.optimizer.update(
        name='muon',
        learning_rate=0.003,
        beta2=0.98,
        bias_correction=True,
        weight_decay=0.0,
        warmup_steps=loop.num_steps // 20,
        muon_learning_rate=0.01,
        muon_momentum=0.95,
        muon_weight_decay=0.0,
    )


def _make_tiny(config: ConfigDict) -> None:
    """4 layers of 128 on the builtin corpus, minutes on two cores; `make demo` is tiny+modern."""
    config.model.update(
        vocab_size=4096,
        embedding_size=64,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
        compute_dtype='float32',
        remat='none',
    )
    config.pretraining.sequence_length = 64
    config.optimizer.update(learning_rate=0.01, warmup_steps=60)
    config.loop.update(
        num_steps=600,
        batch_size=32,
        log_every=25,
        eval_every=100,
        num_eval_batches=16,
        checkpoint_every=100,
    )


def _make_mini(config: ConfigDict) -> None:
    """A sixth of base's width and half of its depth, for ablations: minutes on one core.

    With +modern it finds 34 % of the held-out masked pieces of the builtin corpus. E is half of H,
    heads are of 32, inside it is four times as wide. LAMB corrects its bias: without that, biases
    and norms take steps three to six times as large for a hundred steps.
    """
    config.model.update(
        vocab_size=4096,
        embedding_size=64,
        hidden_size=128,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=64,
        compute_dtype='float32',
        remat='none',
    )
    config.pretraining.sequence_length = 64
    config.optimizer.update(bias_correction=True, learning_rate=0.01, warmup_steps=60)
    config.loop.update(
        num_steps=600,
        batch_size=32,
        log_every=25,
        eval_every=50,
        num_eval_batches=16,
        checkpoint_every=50,
        keep_last=1,
    )
