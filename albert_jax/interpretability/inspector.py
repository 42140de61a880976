"""What a trained model does inside: where it looks, which words move its answer, how layers change.

Attention maps; attention rollout (arXiv 2005.00928); integrated gradients (arXiv 1703.01365); and
how alike a layer's input and output are, by depth (Figure 1 of the paper).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from albert_jax.cli.errors import UserError
from albert_jax.interop.native import Pretrained, complete
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.finetuned import FinetunedModel

# Attributions must add up to the difference that they explain, within this share of it.
COMPLETENESS = 1e-2
_FEWEST_POINTS, _MOST_POINTS = 16, 1024
_POINTS_AT_A_TIME = 16


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A text as the model reads it: `[CLS] first [SEP]`, or `[CLS] first [SEP] second [SEP]`."""

    pieces: tuple[str, ...]
    input_ids: Int[np.ndarray, '1 length']
    token_type_ids: Int[np.ndarray, '1 length']

    @property
    def is_special(self) -> np.ndarray:
        """Which pieces stand for no text: [CLS] and [SEP]."""
        return np.array([piece in ('[CLS]', '[SEP]') for piece in self.pieces])


@dataclasses.dataclass(frozen=True)
class Inside:
    """What every layer did with a text."""

    encoded: Encoded
    attention: Float[np.ndarray, 'layers heads length length']
    # The embeddings, projected, and after each layer.
    hidden: Float[np.ndarray, 'layers_and_one length hidden']


@dataclasses.dataclass(frozen=True)
class Attribution:
    """How much each piece moved an output away from what it is for a text of [MASK]s."""

    encoded: Encoded
    # Of what.
    output: str
    scores: Float[np.ndarray, 'length']
    # The output for the text and for the masks; their difference is what the scores add up to.
    value: float
    baseline_value: float
    num_points: int

    @property
    def gap(self) -> float:
        """The share of the difference that the scores leave unexplained."""
        difference = self.value - self.baseline_value
        return abs(float(self.scores.sum()) - difference) / max(abs(difference), 1e-6)


def encode(model: Pretrained, first: str, second: str | None = None) -> Encoded:
    """A text, or a pair, with `[MASK]` as a piece of its own.

    Raises:
      UserError: if the model has no vocabulary or too few positions.
    """
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise UserError('The model has no vocabulary.')
    if not first.strip():
        raise UserError('The text is empty; give some words to look at.')
    segments = [tokenizer.encode_with_masks(text) for text in (first, second) if text is not None]
    ids, types = [tokenizer.cls_id], [0]
    for number, segment in enumerate(segments):
        ids += [*segment, tokenizer.sep_id]
        types += [number] * (len(segment) + 1)
    if len(ids) > model.config.max_position_embeddings:
        raise UserError(
            f'The text has {len(ids)} pieces; the model has '
            f'{model.config.max_position_embeddings} positions: shorten it.'
        )
    pieces = tuple(str(tokenizer.pieces[i]) for i in ids)
    return Encoded(pieces, np.array([ids], np.int32), np.array([types], np.int32))


def look(model: Pretrained, encoded: Encoded) -> Inside:
    """Runs the model and keeps what every layer and head did."""
    return Inspector(model).look(encoded)


def rollout(
    attention: Float[np.ndarray, 'layers heads length length'],
) -> Float[np.ndarray, 'layers length length']:
    """How much of each input piece reaches each place, after each layer.

    Heads are averaged, the residual connection counts for half, and layers are multiplied
    (arXiv 2005.00928, section 3). Rows sum to 1.
    """
    length = attention.shape[-1]
    mixed = 0.5 * attention.mean(1) + 0.5 * np.eye(length)
    mixed /= mixed.sum(-1, keepdims=True)
    found = [mixed[0]]
    for layer in mixed[1:]:
        found.append(layer @ found[-1])
    return np.stack(found)


def similarity_by_depth(
    hidden: Float[np.ndarray, 'layers_and_one length hidden'],
) -> tuple[Float[np.ndarray, 'layers'], Float[np.ndarray, 'layers']]:
    """Distance and angle between input and output of each layer (Figure 1 of the paper).

    Returns:
      The Euclidean distance and the angle in degrees, means over the pieces.
    """
    before, after = hidden[:-1].astype(np.float64), hidden[1:].astype(np.float64)
    distances = np.linalg.norm(after - before, axis=-1).mean(-1)
    norms = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    cosines = (before * after).sum(-1) / np.maximum(norms, 1e-12)
    return distances, np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean(-1)


@dataclasses.dataclass(frozen=True)
class Output:
    """A number that a model gives for a text: a class's logit, or a piece's log-probability."""

    name: str
    # Among the classes, or the pieces of the vocabulary.
    index: int
    # Of the [MASK]; None for a class.
    place: int | None = None


def class_output(model: Pretrained, encoded: Encoded, label: str | None = None) -> Output:
    """The logit of a class of a fine-tuned model; the likeliest class if none is named.

    Raises:
      UserError: if the model is not a classifier or has no such label.
    """
    return Inspector(model).class_output(encoded, label)


def masked_output(model: Pretrained, encoded: Encoded, piece: str | None = None) -> Output:
    """The log-probability of a piece at the first `[MASK]`; the likeliest piece if none is named.

    Raises:
      UserError: if there is no mask, no such piece, or no masked-LM head.
    """
    return Inspector(model).masked_output(encoded, piece)


def integrated_gradients(model: Pretrained, encoded: Encoded, output: Output) -> Attribution:
    """As `Inspector.integrated_gradients`."""
    return Inspector(model).integrated_gradients(encoded, output)


class Inspector:
    """Looks into a model; each program is compiled once for each length.

    Args:
      model: pretrained, or fine-tuned.
      lengths: that texts are padded to; none for each text's own.
    """

    def __init__(self, model: Pretrained, lengths: Sequence[int] = ()) -> None:
        self.model, self.lengths = model, tuple(sorted(lengths))
        self._params = jax.tree.map(jnp.asarray, complete(model).params)
        self._albert = PretrainingModel(model.config.plain)
        self._table = np.asarray(model.params['embeddings']['word']['embedding'])
        self._details = jax.jit(functools.partial(self._albert.apply, return_attentions=True))
        self._values = jax.jit(self._outputs)
        self._slopes = jax.jit(self._gradients)

    @property
    def num_compiled(self) -> int:
        """How many programs have been compiled."""
        programs: list[Any] = [self._details, self._values, self._slopes]
        return sum(program._cache_size() for program in programs)

    def compile(self, length: int) -> None:
        """Compiles all that texts of a length need."""
        ids = np.ones((1, length), np.int32)
        encoded = Encoded(('',) * length, ids, np.zeros_like(ids))
        self.look(encoded)
        head = self.model.head
        if 'mlm' in self.model.own_params() if head is None else head.definition.is_text_classifier:
            self._of_text(encoded, 0)
            way, shares = self._from_masks(encoded, length), np.ones(_POINTS_AT_A_TIME, np.float32)
            self._slopes(
                self._params, *self._padded(encoded), way, shares, jnp.int32(0), jnp.int32(0)
            )

    def likeliest(self, encoded: Encoded) -> Output:
        """The likeliest class of a classifier, or the likeliest piece at the first `[MASK]`.

        Raises:
          UserError: if the model has neither.
        """
        if self.model.head is None:
            return self.masked_output(encoded)
        return self.class_output(encoded)

    def look(self, encoded: Encoded) -> Inside:
        """Runs the model and keeps what every layer and head did."""
        ids, mask, types = self._padded(encoded)
        output: Any = self._details({'params': self._params}, ids, mask, types)
        length = len(encoded.pieces)
        return Inside(
            encoded,
            np.asarray(output.attention_probs)[:, 0, :, :length, :length],
            np.asarray(output.hidden_states)[:, 0, :length],
        )

    def class_output(self, encoded: Encoded, label: str | None = None) -> Output:
        """The logit of a class of a fine-tuned model; the likeliest class if none is named.

        Raises:
          UserError: if the model is not a classifier or has no such label.
        """
        head = self.model.head
        if head is None or not head.definition.is_text_classifier:
            raise UserError('Only models for classification or regression have a class to explain.')
        if label is not None and label not in head.labels:
            raise UserError(f'There is no label {label!r}; there are {", ".join(head.labels)}.')
        if label is None:
            label = head.labels[int(self._of_text(encoded, None).argmax())]
        return Output(label, head.labels.index(label))

    def masked_output(self, encoded: Encoded, piece: str | None = None) -> Output:
        """The log-probability of a piece at the first `[MASK]`; the likeliest if none is named.

        Raises:
          UserError: if there is no mask, no such piece, or no masked-LM head.
        """
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        places = np.flatnonzero(encoded.input_ids[0] == tokenizer.mask_id)
        if not places.size:
            raise UserError('The text has no [MASK]; put one where the model is to fill a word in.')
        if 'mlm' not in self.model.own_params():
            raise UserError('The model has no masked-LM head.')
        place = int(places[0])
        pieces = [str(known) for known in tokenizer.pieces]
        if piece is None:
            index = int(self._of_text(encoded, place).argmax())
        elif piece in pieces or f'▁{piece}' in pieces:
            index = pieces.index(piece if piece in pieces else f'▁{piece}')
        else:
            raise UserError(
                f'{piece!r} is no piece of the vocabulary; give one that fill_mask shows.'
            )
        return Output(pieces[index].replace('▁', ''), index, place)

    def integrated_gradients(self, encoded: Encoded, output: Output) -> Attribution:
        """How much each piece moved the output, along the straight way from a text of [MASK]s.

        The gradient with respect to the word embeddings is averaged over the way by the midpoint
        rule, with twice as many points until the scores add up to the difference within 1e-2 of it
        (completeness). [CLS], [SEP] and the given masks stay as they are.

        Raises:
          UserError: if they do not add up with 1024 points either.
        """
        inputs = self._padded(encoded)
        length, way = len(encoded.pieces), self._from_masks(encoded, inputs[0].shape[1])
        place, index = jnp.int32(output.place or 0), output.index
        ends = np.zeros(_POINTS_AT_A_TIME, np.float32)
        ends[1] = 1
        values = np.asarray(self._values(self._params, *inputs, way, ends, place))[:2, index]
        baseline_value, value = (float(x) for x in values)
        num_points = _FEWEST_POINTS
        while True:
            shares = (np.arange(num_points, dtype=np.float32) + 0.5) / num_points
            total = np.zeros(way.shape, np.float64)
            for part in shares.reshape(-1, _POINTS_AT_A_TIME):
                total += np.asarray(
                    self._slopes(self._params, *inputs, way, part, place, jnp.int32(index)),
                    np.float64,
                )
            scores = (total / num_points * way.astype(np.float64)).sum(-1)[:length]
            found = Attribution(encoded, output.name, scores, value, baseline_value, num_points)
            if found.gap <= COMPLETENESS:
                return found
            num_points *= 2
            if num_points > _MOST_POINTS:
                raise UserError(
                    f'The scores of {output.name!r} leave {found.gap:.1%} of the difference '
                    f'unexplained with {_MOST_POINTS} points; it is too small to be explained.'
                )

    def _of_text(self, encoded: Encoded, place: int | None) -> np.ndarray:
        """Every output for the text itself."""
        inputs = self._padded(encoded)
        way = self._from_masks(encoded, inputs[0].shape[1])
        shares = np.ones(_POINTS_AT_A_TIME, np.float32)
        values = self._values(self._params, *inputs, way, shares, jnp.int32(place or 0))
        return np.asarray(values)[0]

    def _from_masks(self, encoded: Encoded, length: int) -> Float[np.ndarray, 'length embedding']:
        """The way from a text of masks to the text, as word embeddings."""
        assert self.model.tokenizer is not None
        way = np.zeros((length, self._table.shape[1]), np.float32)
        moved = self._table[encoded.input_ids[0]] - self._table[self.model.tokenizer.mask_id]
        way[: len(encoded.pieces)] = np.where(encoded.is_special[:, None], 0, moved)
        return way

    def _padded(self, encoded: Encoded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, mask and segments, as long as the next of the lengths."""
        count = len(encoded.pieces)
        length = next((x for x in self.lengths if x >= count), count)
        if self.lengths and count > self.lengths[-1]:
            raise UserError(
                f'The text has {count} pieces, of which {self.lengths[-1]} can be looked at; '
                f'shorten it.'
            )
        ids, mask, types = (np.zeros((1, length), np.int32) for _ in range(3))
        ids[:, :count], mask[:, :count], types[:, :count] = (
            encoded.input_ids, 1, encoded.token_type_ids,
        )  # fmt: skip
        return ids, mask, types

    def _outputs(
        self,
        params: Any,
        ids: Int[Array, '1 length'],
        mask: Int[Array, '1 length'],
        types: Int[Array, '1 length'],
        way: Float[Array, 'length embedding'],
        shares: Float[Array, 'points'],
        place: Int[Array, ''],
        moved: Float[Array, 'points length embedding'] | None = None,
    ) -> Float[Array, 'points outputs']:
        """The outputs on the way: a share of 1 is the text itself, of 0 its masks."""
        num_points = shares.shape[0]
        if moved is None:
            moved = (shares[:, None, None] - 1) * way[None]
        batch = {
            'input_ids': jnp.tile(ids, (num_points, 1)),
            'attention_mask': jnp.tile(mask, (num_points, 1)),
            'token_type_ids': jnp.tile(types, (num_points, 1)),
        }
        if self.model.head is not None:
            model = FinetunedModel(self.model.config.plain, self.model.head)
            return model(params, batch, perturbation=moved).logits['logits']
        encoded: Any = self._albert.apply(
            {'params': params},
            *batch.values(),
            perturbation=moved,
            method=PretrainingModel.encode,
        )
        hidden = encoded.last_hidden_state.astype(jnp.float32)

        def at_mask(module: PretrainingModel, hidden: Array) -> Array:
            at_place = jax.lax.dynamic_slice_in_dim(hidden, place, 1, axis=1)
            return module.mlm(at_place, module.embeddings.decode)[:, 0]

        scores: Any = self._albert.apply({'params': params}, hidden, method=at_mask)
        assert self.model.tokenizer is not None
        return jax.nn.log_softmax(scores[:, : len(self.model.tokenizer.pieces)])

    def _gradients(
        self,
        params: Any,
        ids: Array,
        mask: Array,
        types: Array,
        way: Array,
        shares: Array,
        place: Array,
        index: Int[Array, ''],
    ) -> Float[Array, 'length embedding']:
        """The sum of an output's gradients at some points of the way."""
        moved = (shares[:, None, None] - 1) * way[None]

        def total(moved: Array) -> Array:
            outputs = self._outputs(params, ids, mask, types, way, shares, place, moved)
            return jax.lax.dynamic_index_in_dim(outputs, index, 1, keepdims=False).sum()

        return jax.grad(total)(moved).sum(0)


def words_of(pieces: Sequence[str], scores: Float[np.ndarray, 'length']) -> list[tuple[str, float]]:
    """Whole words with the sums of their pieces' scores, of SentencePiece or WordPiece."""
    has_spaces = any(piece.startswith('▁') for piece in pieces)
    words: list[tuple[str, float]] = []
    was_special = True
    for piece, score in zip(pieces, scores.tolist(), strict=True):
        is_special = piece.startswith('[') and piece.endswith(']')
        starts = piece.startswith('▁') if has_spaces else not piece.startswith('##')
        if starts or is_special or was_special:
            words.append((piece.removeprefix('▁'), score))
        else:
            words[-1] = (words[-1][0] + piece.removeprefix('##'), words[-1][1] + score)
        was_special = is_special
    return [(word, score) for word, score in words if word]
