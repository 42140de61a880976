"""A model with its weights and vocabulary, wherever they came from; ours on disk, read and written.

A checkpoint that is used and not trained on needs its items `params` and `about` only.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.settings import Settings
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop import old_names
from albert_jax.interop.checksums import check_digests, digests
from albert_jax.interop.metadata import CheckpointMetadata, read_selection
from albert_jax.interop.run_folder import FOLDER, best_step, read_scores, without_warnings
from albert_jax.interop.whole import damage
from albert_jax.model.albert import init_params
from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder import init_seq2seq
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.heads import Head
from albert_jax.model.paths import flatten

# The checkpoint's item with its CheckpointMetadata.
METADATA_ITEM = 'about'
# The part of a training's parameters that only a distillation uses.
DISTILLATION_PARAMS = 'distillation'
# What a source may lack, and what one loses with it.
OPTIONAL_PARTS = {
    'pooler': 'pooler',
    'mlm': 'masked-LM head',
    'sentence': 'sentence-order head',
}


SettingsT = TypeVar('SettingsT', bound=Settings)


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model that can be applied: what `albert_jax.load` gives.

    `params` is what `PretrainingModel(config).apply({'params': params}, …)` takes. A fine-tuned
    model has the weights of its head beside them, under `head`, a model from text to text those of
    its decoder, under `decoder`.
    """

    config: AlbertConfig
    params: dict[str, Any]
    # None where the source has no vocabulary.
    tokenizer: AnyTokenizer | None
    head: Head | None = None
    # The parts of `params` that the source lacked: drawn at random from a fixed seed.
    initialised: tuple[str, ...] = ()
    # Of the training that the weights come from; 0 where that is not known.
    step: int = 0
    # The config of the run that trained it, as it was stored; empty where there was none. What
    # needs a part of it asks `run_section`.
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    # What a person should know of how the source was read, a sentence each.
    notes: tuple[str, ...] = ()
    # Of a model from text to text.
    decoder: DecoderConfig | None = None

    def run_section(self, kind: type[SettingsT]) -> SettingsT | None:
        """A section of the run's config, or None where the run had none.

        Args:
          kind: of the section.

        Raises:
          UserError: if what was stored is no such section.
        """
        fields = self.run.get(kind.SECTION)
        return None if fields is None else kind.from_dict(fields)

    def own_params(self) -> dict[str, Any]:
        """The parameters without the parts that the source lacked."""
        return {part: tree for part, tree in self.params.items() if part not in self.initialised}


def check_no_decoder(model: Pretrained, origin: str | Path, what: str) -> None:
    """Refuses a model from text to text.

    Args:
      model: to check.
      origin: what to call it in messages.
      what: is not there for such a model, as the subject of a sentence.

    Raises:
      UserError: if the model has a decoder.
    """
    if model.decoder is not None:
        raise UserError(
            f'{origin} goes from text to text, and {what} is not there for such models; its texts '
            f'are had with python -m albert_jax.predict.'
        )


def complete(pretrained: Pretrained) -> Pretrained:
    """Draws the parts that the parameters lack, from a fixed seed, and says so in the notes."""
    missing = tuple(part for part in OPTIONAL_PARTS if part not in pretrained.params)
    if not missing:
        return pretrained

    @jax.jit
    def draw() -> dict[str, Any]:
        fresh = init_params(pretrained.config, jax.random.key(0))
        return {part: fresh[part] for part in missing}

    names = ', '.join(OPTIONAL_PARTS[part] for part in missing)
    # A fine-tuned model is used without them.
    note = f'the source has no {names}; initialised at random (seed 0): train before use.'
    notes = pretrained.notes if pretrained.head else (*pretrained.notes, note)
    return dataclasses.replace(
        pretrained, params=pretrained.params | draw(), initialised=missing, notes=notes
    )


def with_tokenizer(pretrained: Pretrained, tokenizer: AnyTokenizer, origin: str) -> Pretrained:
    """The model with another vocabulary.

    Raises:
      UserError: if it has more pieces than the model.
    """
    if len(tokenizer.pieces) > pretrained.config.vocab_size:
        raise UserError(
            f'{origin}: the vocabulary has {tokenizer.vocab_size} pieces, the model '
            f'{pretrained.config.vocab_size}; they do not belong together.'
        )
    return dataclasses.replace(pretrained, tokenizer=tokenizer)


@functools.cache
def expected_shapes(
    config: AlbertConfig, decoder: DecoderConfig | None = None
) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter of the pretraining model, by its path; of its decoder too."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    abstract = jax.eval_shape(functools.partial(init_params, config), key)
    if decoder is not None:
        abstract |= jax.eval_shape(functools.partial(init_seq2seq, config, decoder), key)
    return {path: leaf.shape for path, leaf in flatten(abstract).items()}


def write(pretrained: Pretrained, directory: Path) -> None:
    """Writes a checkpoint that stands alone into a directory that exists and is empty.

    Parts that were only initialised are left out.
    """
    params = pretrained.own_params()
    metadata = CheckpointMetadata(
        dict(pretrained.run),
        pretrained.config,
        pretrained.tokenizer,
        {},
        pretrained.head,
        decoder=pretrained.decoder,
    )
    numbers = digests({'params': params})
    content = metadata.to_json() | {'step': pretrained.step, 'digests': numbers}
    with ocp.StandardCheckpointer() as writer:
        writer.save(directory.absolute() / 'params', params)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
        writer.save(directory.absolute() / METADATA_ITEM, content)


def read(path: str | Path) -> Pretrained:
    """The weights of a run's directory or of one of its checkpoints, without completing them.

    Of a run's directory, the best checkpoint by the run's metric is taken, or the latest where
    none has been evaluated.

    Raises:
      UserError: if there is no checkpoint, or it cannot be read.
    """
    try:
        directory = _best_checkpoint(Path(path).absolute())
        _check_whole(directory)
        content = read_content(directory)
        metadata = CheckpointMetadata.from_json(content)
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        with without_warnings(), ocp.StandardCheckpointer() as reader:
            stored: Any = reader.metadata(directory / 'params')
            target = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
                dict(stored.item_metadata.tree),
            )
            params = reader.restore(directory / 'params', target)
        _check_shapes(params, metadata.model, metadata.decoder)
        saved = content['digests']
        check_digests({'params': params}, saved)
        params = old_names.todays_params(params)
        params.pop(DISTILLATION_PARAMS, None)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f'{path} cannot be read as a checkpoint: {first_line(error)}.') from error
    return Pretrained(
        metadata.model,
        params,
        metadata.tokenizer,
        metadata.head,
        step=content['step'],
        run=metadata.run,
        decoder=metadata.decoder,
    )


def _check_whole(checkpoint: Path) -> None:
    found = damage(checkpoint, METADATA_ITEM, 'params')
    if found:
        raise UserError(f'{checkpoint} is incomplete or damaged ({found}): copy it again.')


def _check_shapes(
    params: dict[str, Any], config: AlbertConfig, decoder: DecoderConfig | None
) -> None:
    shapes = {path: np.shape(leaf) for path, leaf in flatten(params).items()}
    for path, shape in expected_shapes(config, decoder).items():
        part = path.partition('/')[0]
        if part in OPTIONAL_PARTS and part not in params:
            continue
        if shapes.get(path) != shape:
            raise ValueError(f'{path} has the shape {shapes.get(path)}, its config says {shape}')


def is_checkpoint(path: Path) -> bool:
    """Whether a directory holds a run, or a checkpoint of a run or of a conversion."""
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    return _stands_alone(path) or any(
        child.name.isdigit() and _stands_alone(child) for child in folder.iterdir()
    )


def _stands_alone(path: Path) -> bool:
    return (path / METADATA_ITEM).is_dir() and (path / 'params').is_dir()


def latest_checkpoint(path: Path) -> Path:
    """The folder of a run's latest checkpoint; that of the checkpoint itself if `path` is one.

    Raises:
      UserError: if there is none.
    """
    if not path.is_dir():
        raise UserError(f'{path} is not a directory; give a run (--workdir) or a checkpoint of it.')
    if _stands_alone(path):
        return path
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdigit()]
    if not steps:
        raise UserError(f'{path} holds no checkpoint; give a run (--workdir) or a checkpoint.')
    return folder / str(max(steps))


def _best_checkpoint(path: Path) -> Path:
    """As `latest_checkpoint`, but the best by the run's metric where any was evaluated."""
    latest = latest_checkpoint(path)
    if latest == path:
        return path
    folder = latest.parent
    _, is_lower_better = read_selection(read_content(latest))
    best = best_step(read_scores(folder), is_lower_better)
    return latest if best is None else folder / str(best)


def read_content(checkpoint: Path) -> dict[str, Any]:
    """The metadata of a checkpoint with its step and the digests of its arrays, as stored."""
    with without_warnings(), ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
        return reader.restore(checkpoint / METADATA_ITEM)
