"""What a loaded checkpoint can do for a text: answer as its head does, fill masks, embed."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from albert_jax.cli.errors import UserError
from albert_jax.data.piece_text import piece_texts
from albert_jax.interop.native import Pretrained, complete
from albert_jax.model.albert import PretrainingModel
from albert_jax.service.batching import Arrays, Row, pad_to
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.batches import bucket_lengths
from albert_jax.tasks.features import Features
from albert_jax.tasks.prediction import Predictor
from albert_jax.training.programs import Programs
from albert_jax.training.sharding import BATCH, REPLICATED, put_batch, replicated

_MORE_LENGTHS = (24, 40, 56)
_EMPTY = 'has no text, so the answer says nothing'
_EMPTY_OF_SEVERAL = 'has no text in {}, so the answer says nothing'
MOST_MASKS = 8
MOST_PIECES = 20
# A name and an array for each output.
DeviceArrays = Mapping[str, jax.Array]
_INPUTS = ('input_ids', 'attention_mask', 'token_type_ids')


def served_lengths(max_length: int) -> tuple[int, ...]:
    """The lengths that rows may have: fine-tuning's, and more of the short ones, as texts are."""
    short = (length for length in _MORE_LENGTHS if length < max_length)
    return tuple(sorted({*bucket_lengths(max_length), *short}))


class Encoded(NamedTuple):
    """Texts as rows, and how their outputs become answers."""

    rows: list[Row]
    answers: Callable[[Sequence[Arrays]], list[Any]]
    # What a person should know of some of the texts, by their numbers.
    notes: Mapping[int, str] = {}


@runtime_checkable
class Ability(Protocol):
    """Something that a model does with texts."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """What rows are padded to."""
        ...

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled."""
        ...

    def encode(self, given: Sequence[Any]) -> Encoded:
        """The rows of some texts."""
        ...

    def start(self, batch: Mapping[str, np.ndarray]) -> DeviceArrays:
        """The outputs of a batch, which may still be under way."""
        ...

    def example(self, length: int) -> Row:
        """Any row of a length, to compile for."""
        ...

    def compile(self, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles what `start` needs for a batch of these shapes, and computes nothing."""
        ...


class Predict:
    """The head's own answer: labels with probabilities, spans, tags, scores."""

    def __init__(self, answerer: Answerer) -> None:
        assert isinstance(answerer.predictor, Predictor)
        self._answerer, self._predictor = answerer, answerer.predictor
        self.lengths = served_lengths(answerer.task.settings.max_length)

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled."""
        return self._predictor.num_compiled

    def encode(self, given: Sequence[Any]) -> Encoded:
        """The rows of some texts; of a question one for each window of its passage.

        Raises:
          UserError: if one is not what the task wants.
        """
        answerer, task = self._answerer, self._answerer.task
        examples = []
        for number, value in enumerate(given):
            examples.append(answerer.example(value, f'input {number}', str(number)))
            answerer.check_all_is_read(value, f'input {number}')
        features = task.encode(examples, answerer.tokenizer, answerer.head, False)
        lengths = [next(x for x in self.lengths if x >= n) for n in features.lengths]
        pad_id, one = answerer.tokenizer.pad_id, np.ones(1, np.float32)
        rows = [
            Row(features.batch(np.array([index]), one, length, pad_id), length)
            for index, length in enumerate(lengths)
        ]

        def answers(outputs: Sequence[Arrays]) -> list[Any]:
            merged = {name: [row[name] for row in outputs] for name in outputs[0]}
            predictions = task.predictions(examples, features, merged, answerer.head)
            return [{k: v for k, v in answer.items() if k != 'id'} for answer in predictions]

        return Encoded(rows, answers, self._notes(examples, features))

    def _notes(self, examples: Sequence[Any], features: Features) -> dict[int, str]:
        """Which of the examples were cut, have no text, or lack one of several."""
        answerer, notes = self._answerer, {}
        for number, example in enumerate(examples):
            if empty := answerer.task.empty_texts(example):
                notes[number] = _EMPTY_OF_SEVERAL.format(' and '.join(empty))
        if not (features.num_cut or features.num_without_text):
            return notes
        for number, example in enumerate(examples):
            alone = features
            if len(examples) > 1:
                alone = answerer.task.encode([example], answerer.tokenizer, answerer.head, False)
            if alone.num_cut:
                cut = f'was cut to {answerer.task.cut_to}'
                notes[number] = f'{notes[number]}, and {cut}' if number in notes else cut
            elif alone.num_without_text:
                notes[number] = _EMPTY
        return notes

    def start(self, batch: Mapping[str, np.ndarray]) -> DeviceArrays:
        """The head's outputs."""
        return self._predictor.start(self._answerer.params, batch)

    def example(self, length: int) -> Row:
        """Any row of a length."""
        return pad_to(self.encode([self._answerer.task.sample]).rows[0], length)

    def compile(self, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles for a batch of these shapes."""
        self._predictor.compile(self._answerer.params, batch)


class _Mapped:
    """A function of parameters and a batch, its rows split over the devices.

    Args:
      function: that is mapped.
      params: its first argument.
      mesh: the devices.
      identity: as of Programs.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], dict[str, jax.Array]],
        params: PyTree,
        mesh: Mesh,
        identity: tuple[Any, ...],
    ) -> None:
        self._mesh, self._params = mesh, jax.device_put(params, replicated(mesh))
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=(REPLICATED, BATCH), out_specs=BATCH, check_vma=False
        )
        self._programs = Programs(jax.jit(mapped, out_shardings=replicated(mesh)), *identity)

    @property
    def num_compiled(self) -> int:
        return self._programs.num_compiled

    def compile(self, batch: Mapping[str, np.ndarray]) -> None:
        self._programs.compile(self._params, put_batch(self._mesh, batch))

    def __call__(self, batch: Mapping[str, np.ndarray]) -> DeviceArrays:
        return self._programs(self._params, put_batch(self._mesh, batch))


class _OfPretrained:
    """What both abilities of the encoder alone share."""

    def __init__(self, model: Pretrained, max_length: int) -> None:
        self._model = model
        positions = model.config.max_position_embeddings
        self.lengths = served_lengths(min(max_length or 512, positions))

    def _row(self, ids: Sequence[int], number: int, **more: np.ndarray) -> Row:
        if len(ids) > self.lengths[-1]:
            raise UserError(
                f'input {number} has {len(ids)} pieces, of which {self.lengths[-1]} are taken; '
                f'shorten it.'
            )
        length = next(x for x in self.lengths if x >= len(ids))
        tokenizer = self._model.tokenizer
        assert tokenizer is not None
        padded = np.full((1, length), tokenizer.pad_id, np.int32)
        padded[0, : len(ids)] = ids
        mask = (np.arange(length) < len(ids)).astype(np.int32)[None]
        return Row(
            dict(zip(_INPUTS, (padded, mask, np.zeros_like(mask)), strict=True)) | more, length
        )

    @staticmethod
    def _text(value: Any, number: int) -> str:
        if not isinstance(value, str):
            raise UserError(f'input {number} must be a text.')
        return value


def _fill(
    model: PretrainingModel,
    num_pieces: int,
    num_candidates: int,
    params: PyTree,
    batch: Mapping[str, jax.Array],
) -> dict[str, jax.Array]:
    """The likeliest pieces at each masked position, and their probabilities."""
    output: Any = model.apply(
        {'params': params},
        *(batch[name] for name in _INPUTS),
        batch['masked_positions'],
        is_right_padded=True,
    )
    probabilities = jax.nn.softmax(output.mlm_logits[..., :num_pieces])
    best, pieces = jax.lax.top_k(probabilities, num_candidates)
    return {'probabilities': best, 'pieces': pieces}


def _embed(
    model: PretrainingModel, params: PyTree, batch: Mapping[str, jax.Array]
) -> dict[str, jax.Array]:
    """The mean of each text's last layer, and its [CLS]."""
    encoded: Any = model.apply(
        {'params': params},
        *(batch[name] for name in _INPUTS),
        use_pooler=False,
        is_right_padded=True,
        method='encode',
    )
    hidden = encoded.last_hidden_state.astype(jnp.float32)
    mask = batch['attention_mask'].astype(jnp.float32)[:, :, None]
    return {'mean': (hidden * mask).sum(1) / mask.sum(1), 'cls': hidden[:, 0]}


class FillMask(_OfPretrained):
    """The likeliest pieces for every [MASK] of a text."""

    def __init__(self, model: Pretrained, mesh: Mesh, max_length: int = 0) -> None:
        super().__init__(model, max_length)
        config, tokenizer = model.config, model.tokenizer
        assert tokenizer is not None
        self._piece_texts = piece_texts(tokenizer)
        num_pieces = min(MOST_PIECES, len(tokenizer.pieces))
        sizes = len(tokenizer.pieces), num_pieces
        fill = functools.partial(_fill, PretrainingModel(config), *sizes)
        self._fill = _Mapped(fill, complete(model).params, mesh, ('fill', config, *sizes))

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled."""
        return self._fill.num_compiled

    def encode(self, given: Sequence[Any]) -> Encoded:
        """The rows of some texts.

        Raises:
          UserError: if one has no [MASK], or too many of them, or is too long.
        """
        tokenizer = self._model.tokenizer
        assert tokenizer is not None
        texts = self._piece_texts
        rows, counts = [], []
        for number, value in enumerate(given):
            pieces = tokenizer.encode_with_masks(self._text(value, number))
            ids = [tokenizer.cls_id, *pieces, tokenizer.sep_id]
            masks = [index for index, piece in enumerate(ids) if piece == tokenizer.mask_id]
            if not 0 < len(masks) <= MOST_MASKS:
                raise UserError(
                    f'input {number} has {len(masks)} [MASK]s; there must be 1 to {MOST_MASKS}.'
                )
            positions = np.zeros((1, MOST_MASKS), np.int32)
            positions[0, : len(masks)] = masks
            rows.append(self._row(ids, number, masked_positions=positions))
            counts.append(len(masks))

        def answers(outputs: Sequence[Arrays]) -> list[Any]:
            return [
                [
                    [
                        {
                            'piece': str(tokenizer.pieces[piece]),
                            'text': texts[piece],
                            'probability': float(chance),
                        }
                        for piece, chance in zip(pieces, chances, strict=True)
                    ]
                    for pieces, chances in zip(
                        output['pieces'][:count], output['probabilities'][:count], strict=True
                    )
                ]
                for output, count in zip(outputs, counts, strict=True)
            ]

        return Encoded(rows, answers)

    def start(self, batch: Mapping[str, np.ndarray]) -> DeviceArrays:
        """The likeliest pieces and their probabilities."""
        return self._fill(batch)

    def example(self, length: int) -> Row:
        """Any row of a length."""
        positions = np.zeros((1, MOST_MASKS), np.int32)
        return self._row([1] * length, 0, masked_positions=positions)

    def compile(self, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles for a batch of these shapes."""
        self._fill.compile(batch)


class Embed(_OfPretrained):
    """A vector for a text: the mean of its pieces' last layer, or that of [CLS]."""

    def __init__(self, model: Pretrained, mesh: Mesh, max_length: int = 0) -> None:
        super().__init__(model, max_length)
        embed = functools.partial(_embed, PretrainingModel(model.config))
        params = {name: model.params[name] for name in ('embeddings', 'encoder')}
        self._embed = _Mapped(embed, params, mesh, ('embed', model.config))

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled."""
        return self._embed.num_compiled

    def encode(self, given: Sequence[Any]) -> Encoded:
        """The rows of some texts; their answers are arrays by the kind of pooling.

        Raises:
          UserError: if one is too long.
        """
        tokenizer = self._model.tokenizer
        assert tokenizer is not None
        texts = [self._text(value, number) for number, value in enumerate(given)]
        all_ids = tokenizer.encode(texts)
        rows = [
            self._row([tokenizer.cls_id, *ids, tokenizer.sep_id], number)
            for number, ids in enumerate(all_ids)
        ]
        return Encoded(rows, list, {n: _EMPTY for n, ids in enumerate(all_ids) if not ids})

    def start(self, batch: Mapping[str, np.ndarray]) -> DeviceArrays:
        """Both kinds of vectors."""
        return self._embed(batch)

    def example(self, length: int) -> Row:
        """Any row of a length."""
        return self._row([1] * length, 0)

    def compile(self, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles for a batch of these shapes."""
        self._embed.compile(batch)
