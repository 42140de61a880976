"""Small models, parameters, batches, files and runs that many tests use."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder import init_seq2seq
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.heads import HEADS, Head
from albert_jax.pretraining import job as pretraining
from albert_jax.runs.runs import FinetuneRun, PretrainRun
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks import job as finetuning
from albert_jax.tasks.features import Features
from albert_jax.tasks.prepared import prepare
from albert_jax.tasks.registry import make_task

# Models.

# The model's fields of today's recipe.
MODERN = {'position_encoding': 'rope', 'norm_placement': 'pre', 'is_gated': True}
# What each depth may have of its own beside shared weights.
OF_DEPTHS = {'depth_adapter_rank': 3, 'depth_norms': True, 'depth_embedding': True}
RELAXED = OF_DEPTHS | {
    **MODERN, 'num_hidden_layers': 4, 'num_loops': 2, 'num_prelude_layers': 1, 'num_coda_layers': 2,
}  # fmt: skip
CLASSES = Head('sequence_classification', ('no', 'yes'))


def config(**changes: Any) -> AlbertConfig:
    """Two layers of width 16, for the vocabulary of conftest.py."""
    sizes = {
        'vocab_size': 1000, 'embedding_size': 8, 'hidden_size': 16, 'num_hidden_layers': 2,
        'num_attention_heads': 2, 'intermediate_size': 32, 'max_position_embeddings': 64,
    }  # fmt: skip
    return AlbertConfig(**(sizes | changes))


def wider_config(**changes: Any) -> AlbertConfig:
    """Twice as wide, for tests that need attention and logits that differ from text to text."""
    sizes = {'embedding_size': 16, 'hidden_size': 32, 'intermediate_size': 64}
    return config(**(sizes | {'max_position_embeddings': 48} | changes))


def random_tree(tree: Any, seed: int = 0, scale: float = 0.3) -> Any:
    """Every parameter random, norms and biases too, so that none can hide; from its shapes."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, scale, x.shape), jnp.float32), tree)


def random_params(config: AlbertConfig, seed: int = 0, scale: float = 0.3) -> Any:
    """All parameters of a pretraining model, as random_tree draws them."""
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    return random_tree(shapes, seed, scale)


def unbiased(params: Any, factor: float = 1.0) -> Any:
    """Without biases, which outweigh what a model reads, and with its kernels times the factor."""

    def changed(path: Any, leaf: Any) -> Any:
        name = path[-1].key
        if name in ('bias', 'scale'):
            return jnp.full_like(leaf, float(name == 'scale'))
        return factor * leaf if name == 'kernel' else leaf

    return jax.tree_util.tree_map_with_path(changed, params)


def classifier_params(config: AlbertConfig) -> Any:
    """All parameters of a classifier with two classes, as random_tree draws them."""
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    head = HEADS['sequence_classification'].init(2, config, jax.random.key(1))
    encoder = {name: shapes[name] for name in ('embeddings', 'encoder', 'pooler')}
    return random_tree(encoder | {'head': head})


def pretrained(config: AlbertConfig, vocabulary: bytes) -> Pretrained:
    """A model as it is initialized, with its tokenizer."""
    params = jax.jit(lambda: init_params(config, jax.random.key(0)))()
    return Pretrained(config, dict(params), Tokenizer(vocabulary))


def random_model(config: AlbertConfig, vocabulary: bytes) -> Pretrained:
    """As `pretrained`, of random_params: nothing is compiled for it."""
    return Pretrained(config, dict(random_params(config)), Tokenizer(vocabulary))


# Whatever the vocabulary, `text_to_text` ends its text of one of these and is cut in another's.
SOURCES = (
    'returns an index of the list', 'a value', 'class error', 'the list', 'statement import',
    'an object', 'of the', 'names', 'value', 'index', 'the value of a class', 'is not',
)  # fmt: skip


def text_to_text(
    vocabulary: bytes, fields: Mapping[str, Any] | None = None, **sections: Any
) -> Pretrained:
    """A model with a decoder, of random weights.

    What it writes depends on the source and on the place in the text, and some texts end. Which
    ones depends on the vocabulary, and that on the Python that runs the tests.

    Args:
      vocabulary: of both texts.
      fields: of the model, in place of `wider_config`'s.
      sections: of the config of its run, in place of the task's and the defaults.
    """
    of_model, decoder = wider_config(**fields or {}), DecoderConfig()
    shapes = jax.eval_shape(lambda: init_seq2seq(of_model, decoder, jax.random.key(0)))
    params = unbiased(random_tree(shapes), 1.5)
    tokenizer = Tokenizer(vocabulary)
    if 'position' in params['embeddings']:
        params['embeddings']['position']['embedding'] *= 2
    params['mlm']['bias'] = params['mlm']['bias'].at[tokenizer.sep_id].add(2.5)
    task = {'name': 'generation', 'max_length': 16, 'max_target_length': 16}
    return Pretrained(of_model, params, tokenizer, run={'task': task} | sections, decoder=decoder)


def write(model: Pretrained, folder: Path) -> Path:
    """A checkpoint on disk; makes its folder."""
    folder.mkdir()
    native.write(model, folder)
    return folder


def outputs(config: AlbertConfig, params: Any, *inputs: Any, **options: Any) -> Any:
    """What the pretraining model gives: one program, where op by op would compile a hundred."""
    model = PretrainingModel(config)
    return jax.jit(lambda params, inputs: model.apply({'params': params}, *inputs, **options))(
        params, inputs
    )


# Batches.


def pretraining_batches(
    num_steps: int = 10, size: int = 32, length: int = 12, num_predictions: int = 3
) -> Iterator[dict[str, np.ndarray]]:
    """Random batches of 60 pieces, whose rows have very unequal numbers of predictions."""
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        num_masked = rng.integers(0, num_predictions + 1, (size, 1))
        num_masked = num_masked * (np.arange(size)[:, None] % 5 > 0)
        yield {
            'input_ids': rng.integers(0, 60, (size, length), dtype=np.int32),
            'attention_mask': (np.arange(length) < rng.integers(2, length + 1, (size, 1))).astype(
                np.int32
            ),
            'token_type_ids': rng.integers(0, 2, (size, length), dtype=np.int32),
            'masked_positions': rng.integers(0, length, (size, num_predictions), dtype=np.int32),
            'masked_ids': rng.integers(0, 60, (size, num_predictions), dtype=np.int32),
            'masked_weights': (np.arange(num_predictions) < num_masked).astype(np.float32),
            'sentence_labels': rng.integers(0, 2, size, dtype=np.int32),
            'sentence_weights': rng.integers(0, 2, size).astype(np.float32),
        }


def features(lengths: Any, num_choices: int = 1) -> Features:
    """Random encoded examples with sequences of these lengths."""
    lengths = np.asarray(lengths)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rng = np.random.default_rng(0)
    count = len(lengths) // num_choices
    return Features(
        rng.integers(5, 100, starts[-1]).astype(np.int32),
        starts,
        (lengths // 2).astype(np.int32),
        {'labels': np.arange(count, dtype=np.int32)},
        {'token_labels': rng.integers(0, 3, starts[-1]).astype(np.int32)},
        num_choices,
    )


# Tasks and their files.

# Texts of these words are labelled yes and no.
POSITIVE, NEGATIVE = 'statement import class value', 'list number string error'


def task(name: str, **settings: Any) -> Any:
    """A task with the default settings but for these."""
    return make_task(TaskSettings(name=name, **settings))


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text(''.join(f'{line}\n' for line in lines), 'utf-8')
    return path


def write_classification_files(folder: Path) -> None:
    """train.tsv and dev.tsv, whose labels are a matter of the words, with texts of many lengths."""
    rng = np.random.default_rng(0)
    for name, count in (('train', 200), ('dev', 43)):
        rows = ['text\tlabel']
        for _ in range(count):
            label = int(rng.integers(2))
            words = rng.choice((POSITIVE if label else NEGATIVE).split(), rng.integers(1, 9))
            rows.append(f'{" ".join(words)}\t{"yes" if label else "no"}')
        (folder / f'{name}.tsv').write_text('\n'.join(rows) + '\n')


# Runs.


def pretrain(config: Mapping[str, Any], workdir: Path, num_profiled: int = 0) -> int:
    """As the command does: the config of a run, its folder → the exit status."""
    run = PretrainRun.from_dict(config)
    return pretraining.pretrain(pretraining.prepare(run), workdir, num_profiled)


def finetune(config: Mapping[str, Any], workdir: Path) -> int:
    """As the command does: the config of a run, its folder → the exit status."""
    return finetuning.finetune(prepare(FinetuneRun.from_dict(config)), workdir)


# Batches of two lengths, as in the run of conftest.py, whose programs are then there.
TWO_LENGTHS = '--config.task.max_length=32'


def finetune_flags(
    checkpoint: Any, files: Path | str, cache: Path, *more: str, task: str = 'classification'
) -> list[str]:
    """Arguments of the command finetune for a run of 40 steps, without --workdir.

    All batches are of one length: each more is one more program of training and of prediction.
    """
    return [
        f'--config=configs/finetune.py:{task}', f'--config.init_from={checkpoint}',
        f'--config.data.path={files}', f'--config.data.cache={cache}',
        '--config.task.max_length=16', '--config.loop.batch_size=16',
        '--config.optimizer.learning_rate=0.01', '--config.optimizer.warmup_steps=5',
        '--config.loop.num_steps=40', '--config.loop.eval_every=10',
        '--config.loop.checkpoint_every=10', '--config.loop.num_devices=1',
        '--config.optimizer.bias_correction=True', *more,
    ]  # fmt: skip
