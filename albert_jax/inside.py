"""What a trained model does inside: where it looks, which words move its answer, how layers change.

Attention maps; attention rollout (arXiv 2005.00928); integrated gradients (arXiv 1703.01365); and
how alike a layer's input and output are, by depth (Figure 1 of the paper).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from albert_jax.errors import UserError
from albert_jax.heads import apply_head
from albert_jax.model import PretrainingModel
from albert_jax.pretrained import Pretrained, complete

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
    albert = PretrainingModel(model.config.plain)
    output: Any = jax.jit(
        functools.partial(albert.apply, with_details=True),
    )(
        {'params': complete(model).params},
        encoded.input_ids,
        np.ones_like(encoded.input_ids),
        encoded.token_type_ids,
    )
    return Inside(
        encoded, np.asarray(output.attention_probs)[:, 0], np.asarray(output.hidden_states)[:, 0]
    )


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


def class_output(model: Pretrained, encoded: Encoded, label: str | None = None) -> 'Output':
    """The logit of a class of a fine-tuned model; the likeliest class if none is named.

    Raises:
      UserError: if the model is not a classifier or has no such label.
    """
    head = model.head
    if head is None or head.kind != 'sequence_classification':
        raise UserError('Only models for classification or regression have a class to explain.')
    if label is not None and label not in head.labels:
        raise UserError(f'There is no label {label!r}; there are {", ".join(head.labels)}.')

    def logits(params: Any, hidden: Array, pooled: Array) -> Array:
        batch: Any = {}
        return apply_head(
            head.kind, params['head'], hidden, pooled, batch, lambda x: x, is_training=False
        )['logits']

    if label is None:
        values = _value(model, encoded, logits)
        label = head.labels[int(values.argmax())]
    index = head.labels.index(label)
    return Output(label, lambda *arguments: logits(*arguments)[:, index])


def masked_output(model: Pretrained, encoded: Encoded, piece: str | None = None) -> 'Output':
    """The log-probability of a piece at the first `[MASK]`; the likeliest piece if none is named.

    Raises:
      UserError: if there is no mask, no such piece, or no masked-LM head.
    """
    tokenizer = model.tokenizer
    assert tokenizer is not None
    places = np.flatnonzero(encoded.input_ids[0] == tokenizer.mask_id)
    if not places.size:
        raise UserError('The text has no [MASK]; put one where the model is to fill a word in.')
    if 'mlm' not in model.params:
        raise UserError('The model has no masked-LM head.')
    albert = PretrainingModel(model.config.plain)

    def logits(params: Any, hidden: Array, pooled: Array) -> Array:
        del pooled

        def at_mask(module: PretrainingModel, hidden: Array) -> Array:
            return module.mlm(hidden[:, places[0]][:, None], module.embeddings.decode)[:, 0]

        found: Any = albert.apply({'params': params}, hidden, method=at_mask)
        return jax.nn.log_softmax(found[:, : len(tokenizer.pieces)])

    pieces = [str(known) for known in tokenizer.pieces]
    if piece is None:
        index = int(_value(model, encoded, logits).argmax())
    elif piece in pieces or f'▁{piece}' in pieces:
        index = pieces.index(piece if piece in pieces else f'▁{piece}')
    else:
        raise UserError(f'{piece!r} is no piece of the vocabulary; give one that fill_mask shows.')
    name = pieces[index].replace('▁', '')
    return Output(name, lambda *arguments: logits(*arguments)[:, index])


@dataclasses.dataclass(frozen=True)
class Output:
    """A number that a model gives for a text."""

    name: str
    # (params, last layer, pooled output) → one number for each row.
    of: Callable[[Any, Array, Array], Array]


def integrated_gradients(model: Pretrained, encoded: Encoded, output: Output) -> Attribution:
    """How much each piece moved the output, along the straight way from a text of [MASK]s.

    The gradient with respect to the word embeddings is averaged over the way by the midpoint
    rule, with twice as many points until the scores add up to the difference within 1e-2 of it
    (completeness). [CLS], [SEP] and the given masks stay as they are.

    Raises:
      UserError: if they do not add up with 1024 points either.
    """
    params = complete(model).params
    albert = PretrainingModel(model.config.plain)
    assert model.tokenizer is not None
    table = np.asarray(params['embeddings']['word']['embedding'])
    from_masks = table[encoded.input_ids[0]] - table[model.tokenizer.mask_id]
    from_masks[encoded.is_special] = 0

    def way(shares: Float[Array, 'points']) -> Float[Array, 'points length embedding']:
        # A share of 1 is the text itself, of 0 its masks.
        return (shares[:, None, None] - 1) * jnp.asarray(from_masks)[None]

    def outputs(perturbation: Float[Array, 'points length embedding']) -> Float[Array, 'points']:
        num_points = perturbation.shape[0]
        ids = jnp.tile(encoded.input_ids, (num_points, 1))
        found: Any = albert.apply(
            {'params': params},
            ids,
            jnp.ones_like(ids),
            jnp.tile(encoded.token_type_ids, (num_points, 1)),
            perturbation=perturbation,
            with_pooler='pooler' in params,
            method=PretrainingModel.encode,
        )
        hidden, pooled, _, _ = found
        return output.of(params, hidden.astype(jnp.float32), pooled)

    values = jax.jit(lambda shares: outputs(way(shares)))
    gradients = jax.jit(lambda shares: jax.grad(lambda p: outputs(p).sum())(way(shares)).sum(0))

    baseline_value, value = (float(x) for x in np.asarray(values(jnp.array([0.0, 1.0]))))
    num_points = _FEWEST_POINTS
    while True:
        shares = (np.arange(num_points, dtype=np.float32) + 0.5) / num_points
        parts = shares.reshape(-1, _POINTS_AT_A_TIME)
        total = sum(np.asarray(gradients(jnp.asarray(part)), np.float64) for part in parts)
        scores = (total / num_points * from_masks.astype(np.float64)).sum(-1)
        found = Attribution(encoded, output.name, scores, value, baseline_value, num_points)
        if found.gap <= COMPLETENESS:
            return found
        num_points *= 2
        if num_points > _MOST_POINTS:
            raise UserError(
                f'The scores of {output.name!r} leave {found.gap:.1%} of the difference '
                f'unexplained with {_MOST_POINTS} points; it is too small to be explained.'
            )


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


def _value(model: Pretrained, encoded: Encoded, logits: Callable[..., Array]) -> np.ndarray:
    params = complete(model).params
    albert = PretrainingModel(model.config.plain)

    @jax.jit
    def run(params: Any) -> Array:
        found: Any = albert.apply(
            {'params': params},
            encoded.input_ids,
            np.ones_like(encoded.input_ids),
            encoded.token_type_ids,
            with_pooler='pooler' in params,
            method=PretrainingModel.encode,
        )
        hidden, pooled, _, _ = found
        return logits(params, hidden.astype(jnp.float32), pooled)[0]

    return np.asarray(run(params))
