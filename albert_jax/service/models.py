"""The checkpoints that a service has loaded, what each can do, and their programs compiled."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text
from albert_jax.interop import source
from albert_jax.interop.native import Pretrained
from albert_jax.interpretability.encoding import encode
from albert_jax.interpretability.inspector import Inspector
from albert_jax.interpretability.layers import rollout
from albert_jax.interpretability.pair_inspector import PairInspector
from albert_jax.model.rounding import round_kernels
from albert_jax.service.abilities import Ability, Embed, FillMask, Predict
from albert_jax.service.batching import SIZES, Batcher, Device, collate
from albert_jax.service.description import describe_model
from albert_jax.service.generation import Generate, inspect_pair
from albert_jax.service.packing import packed
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.batches import bucket_lengths
from albert_jax.tasks.second_text import check_second_text
from albert_jax.training.sharding import make_mesh, replicated

# Pieces of a text that is inspected, at most; attention grows with the square of it.
_MAX_INSPECTED = 64


class Compilation(NamedTuple):
    """Something to compile."""

    # The model, the ability and the shape.
    name: str
    # What comes first: the first shape of each ability, then what short texts need.
    order: tuple[int, int, int]
    # Programs that there are afterwards.
    num_programs: int
    # Compiles.
    run: Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Served:
    """A checkpoint that answers.

    Args:
      name: what requests call it.
      model: its weights, vocabulary and head.
      abilities: by name: predict, fill-mask, embed, generate.
      batchers: of each.
      inspector: attention and attributions; of two texts where there is a decoder.
      fields: that an example of its task has; empty where it is a text.
      description: kind, size and evaluation.
    """

    name: str
    model: Pretrained
    abilities: dict[str, Ability]
    batchers: dict[str, Batcher]
    inspector: Inspector | PairInspector
    fields: tuple[str, ...]
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def num_compiled(self) -> int:
        """How many programs have been compiled."""
        counted = sum(ability.num_compiled for ability in self.abilities.values())
        return counted + self.inspector.num_compiled

    def can(self, ability: str) -> bool:
        """Whether it has an ability; every model can be inspected."""
        return ability in self.abilities or ability == 'inspect'

    def describe(self) -> dict[str, Any]:
        """What a client has to know."""
        head, generate = self.model.head, self.abilities.get('generate')
        lengths = next(iter(self.abilities.values())).lengths
        if 'predict' in self.abilities:
            lengths = self.abilities['predict'].lengths
        return {
            'name': self.name,
            'abilities': sorted(self.abilities),
            'head': head and head.kind,
            'labels': list(head.labels) if head else [],
            'fields': list(self.fields),
            'max_length': lengths[-1],
            'max_new_tokens': generate.max_new_tokens if isinstance(generate, Generate) else None,
            **self.description,
        }

    def compilations(self) -> list[Compilation]:
        """All that there is to compile, in any order.

        The first of an ability is its longest shape, in which every text fits.
        """
        of_abilities = [
            Compilation(
                f'{self.name}: {name}, {size} × {length}',
                (int((length, size) != (ability.lengths[-1], sizes[0])), size, length),
                1,
                functools.partial(self._compile, name, length, size),
            )
            for name, ability in self.abilities.items()
            for sizes in [self.batchers[name].sizes]
            for length in ability.lengths
            for size in sizes
        ]
        of_inspector = [
            Compilation(
                f'{self.name}: inspect, {length}',
                # After the abilities.
                (int(length != self.inspector.lengths[-1]), SIZES[-1], length),
                self.inspector.programs_per_length,
                functools.partial(self.inspector.compile, length),
            )
            for length in self.inspector.lengths
        ]
        return of_abilities + of_inspector

    def _compile(self, name: str, length: int, size: int) -> None:
        ability = self.abilities[name]
        ability.compile(collate([ability.example(length)], size))
        self.batchers[name].add_compiled((length, size))

    def inspect(self, first: str, second: str | None) -> dict[str, Any]:
        """Attention of every depth and head, and what each word contributes to an answer, if any.

        Args:
          first: a text, with [MASK] where a pretrained model is to be explained.
          second: of a pair; of a model from text to text its target.

        Raises:
          UserError: if it is too long, or the second is missing or should not be there.
        """
        check_second_text(self.model, second)
        if isinstance(self.inspector, PairInspector):
            return inspect_pair(self.inspector, first, second)
        encoded = encode(self.model, first, second)
        attention = self.inspector.activations(encoded).attention
        content: dict[str, Any] = {
            'pieces': list(encoded.pieces),
            'attention': packed(attention),
            'rollout': packed(rollout(attention)),
            'moved': None,
        }
        try:
            output = self.inspector.likeliest_output(encoded)
            attribution = self.inspector.integrated_gradients(encoded, output)
        except UserError:
            # Nothing to explain, or too small a difference: no reason to show no attention.
            return content
        return content | {'moved': attribution.to_json()}


def rounded(model: Pretrained) -> Pretrained:
    """The model with its kernels in the compute dtype, to which all products round them anyway."""
    params = round_kernels(model.params, model.config.compute_dtype)
    return dataclasses.replace(model, params=params)


def load(
    checkpoints: Sequence[str],
    device: Device,
    max_waiting: int,
    max_length: int,
    observe: Callable[[str, str, int, int], None],
) -> dict[str, Served]:
    """Reads the checkpoints, by their names.

    Args:
      checkpoints: NAME=PATH, or PATH whose last part is the name.
      device: that everything is computed on.
      max_waiting: rows for each ability.
      max_length: tokens; 0 for the task's or the model's.
      observe: told of every batch: model, ability, rows, and size.

    Raises:
      UserError: if one cannot be read, has no vocabulary or a name that is no text, or two have one
        name.
    """
    served: dict[str, Served] = {}
    for given in checkpoints:
        name, equals, path = given.partition('=')
        # A path may have an = in it.
        if not equals or '/' in name or Path(given).exists():
            path, name = given, Path(given).resolve().name
        check_text(name, '--checkpoint: the name of the model')
        if name in served:
            raise UserError(
                f'Two checkpoints are called {name}; name them with --checkpoint=NAME=PATH.'
            )
        served[name] = _load(name, path, device, max_waiting, max_length, observe)
    return served


def _load(
    name: str,
    path: str,
    device: Device,
    max_waiting: int,
    max_length: int,
    observe: Callable[[str, str, int, int], None],
) -> Served:
    original = source.read(path)
    if original.tokenizer is None:
        raise UserError(f'{path} has no vocabulary.')
    mesh = make_mesh()
    # On the devices once: an ability's own device_put copies nothing.
    model = rounded(original)
    model = dataclasses.replace(model, params=jax.device_put(model.params, replicated(mesh)))
    sizes = tuple(sorted({-(-size // mesh.size) * mesh.size for size in SIZES}))
    abilities: dict[str, Ability] = {}
    fields: tuple[str, ...] = ()
    if model.decoder is not None:
        abilities['generate'] = Generate(Answerer(model, max_length=max_length))
        longest = model.config.max_position_embeddings
        inspector = PairInspector(original, bucket_lengths(min(_MAX_INSPECTED, longest)))
    else:
        abilities['embed'] = embed = Embed(model, mesh, max_length)
        inspector = Inspector(original, bucket_lengths(min(_MAX_INSPECTED, embed.lengths[-1])))
        if model.head is not None:
            answerer = Answerer(model, max_length=max_length)
            abilities['predict'], fields = Predict(answerer), answerer.fields
        elif 'mlm' in model.params:
            abilities['fill-mask'] = FillMask(model, mesh, max_length)
    batchers = {
        key: Batcher(
            ability.start, device, max_waiting, functools.partial(observe, name, key), sizes
        )
        for key, ability in abilities.items()
    }
    described = describe_model(original, path)
    return Served(name, original, abilities, batchers, inspector, fields, described)
