"""Attention and hidden states of a model, and integrated gradients of its output.

Integrated gradients (arXiv 1703.01365) say how much each piece of a text contributes to an output,
compared with a text of [MASK]s.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.data.piece_text import find_piece, piece_text
from albert_jax.interop.native import Pretrained
from albert_jax.interpretability.answer import Answer, answer_of
from albert_jax.interpretability.encoding import SPECIAL, EncodedText, word_scores
from albert_jax.interpretability.layers import Activations
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.finetuned import FinetunedModel
from albert_jax.model.outputs import EncoderOutput
from albert_jax.training.programs import Programs

# Attributions must add up to the difference that they explain, up to this fraction of it.
COMPLETENESS = 1e-2
_MIN_POINTS, _MAX_POINTS = 16, 1024
# Points that are computed as one batch.
_BATCH_SIZE = 16


@dataclasses.dataclass(frozen=True)
class Attribution:
    """How much each piece contributes to an output, compared with a text of [MASK]s."""

    encoded: EncodedText
    # The name of the output.
    output: str
    scores: Float[np.ndarray, 'length']
    # The output for the text and for the masks; their difference is what the scores add up to.
    value: float
    baseline_value: float
    num_points: int
    # What the output is measured in.
    unit: str = 'logit'

    @property
    def words(self) -> list[tuple[str, float]]:
        """The words of the text with the sums of their pieces' scores."""
        encoded = self.encoded
        words = word_scores(encoded.pieces, self.scores, encoded.added_tokens)
        return [(word, score) for word, score in words if word not in SPECIAL]

    def to_json(self) -> dict[str, Any]:
        """What a page shows of it."""
        return {
            'output': self.output,
            'words': [{'word': word, 'score': score} for word, score in self.words],
            'value': self.value,
            'baseline': self.baseline_value,
            'unit': self.unit,
        }

    @property
    def summary(self) -> str:
        """What the contributions add up to, as a sentence."""
        return (
            f'Together the words move the {self.unit} of {self.output} from '
            f'{self.baseline_value:.3f}, with all of them masked, to {self.value:.3f}.'
        )

    @property
    def gap(self) -> float:
        """The fraction of the difference that the scores leave unexplained."""
        difference = self.value - self.baseline_value
        return abs(float(self.scores.sum()) - difference) / max(abs(difference), 1e-6)


@dataclasses.dataclass(frozen=True)
class Output:
    """A number that a model gives for a text: a class's logit, or a piece's log-probability."""

    name: str
    # Among the classes, or the pieces of the vocabulary.
    index: int
    # Of the [MASK]; None for a class.
    position: int | None = None


class _Inputs(NamedTuple):
    """A text as the model takes it, padded."""

    input_ids: Int[Array, '1 length'] | Int[np.ndarray, '1 length']
    attention_mask: Int[Array, '1 length'] | Int[np.ndarray, '1 length']
    token_type_ids: Int[Array, '1 length'] | Int[np.ndarray, '1 length']


class Inspector:
    """Explains a model; each program is compiled once for each length.

    Args:
      model: pretrained, or fine-tuned.
      lengths: that texts are padded to; none for each text's own.
    """

    def __init__(self, model: Pretrained, lengths: Sequence[int] = ()) -> None:
        self.model, self.lengths = model, tuple(sorted(lengths))
        self._params = jax.device_put(model.params)
        self._albert = PretrainingModel(model.config.plain)
        self._table = np.asarray(model.params['embeddings']['word']['embedding'])
        identity = model.config.plain, model.head, model.tokenizer and len(model.tokenizer.pieces)
        self._run_layers = Programs(jax.jit(self._layers), 'layers', *identity)
        self._run_outputs = Programs(jax.jit(self._outputs), 'outputs', *identity)
        self._run_gradients = Programs(jax.jit(self._gradients), 'gradients', *identity)
        self._compiled_lengths: set[int] = set()

    @property
    def num_compiled(self) -> int:
        """How many programs have been compiled."""
        programs = (self._run_layers, self._run_outputs, self._run_gradients)
        return sum(program.num_compiled for program in programs)

    @property
    def programs_per_length(self) -> int:
        """How many programs texts of a length need."""
        head = self.model.head
        has_outputs = (
            'mlm' in self.model.own_params() if head is None else head.definition.is_text_classifier
        )
        return 3 if has_outputs else 1

    @property
    def is_compiled(self) -> bool:
        """Whether all is compiled that the longest texts need."""
        return bool(self.lengths) and self.lengths[-1] in self._compiled_lengths

    def compile(self, length: int) -> None:
        """Compiles all that texts of a length need, and computes nothing."""
        inputs = _Inputs(*(np.ones((1, length), np.int32) for _ in _Inputs._fields))
        self._run_layers.compile(self._params, inputs)
        if self.programs_per_length > 1:
            difference = np.zeros((length, self._table.shape[1]), np.float32)
            alphas, zero = np.ones(_BATCH_SIZE, np.float32), np.int32(0)
            self._run_outputs.compile(self._params, inputs, difference, alphas, zero)
            self._run_gradients.compile(self._params, inputs, difference, alphas, zero, zero)
        self._compiled_lengths.add(length)

    def activations(self, encoded: EncodedText) -> Activations:
        """Runs the model and keeps the attention and the hidden states of every layer."""
        output = self._run_layers(self._params, self._padded(encoded))
        length = len(encoded.pieces)
        return Activations(
            encoded,
            np.asarray(output.attention_probs)[:, 0, :, :length, :length],
            np.asarray(output.hidden_states)[:, 0, :length],
        )

    def answer(self, encoded: EncodedText) -> Answer | None:
        """What the model answers; None if it is no classifier and the text has no `[MASK]`."""
        head, tokenizer = self.model.head, self.model.tokenizer
        if head is not None:
            is_asked, position = head.definition.is_text_classifier, None
        else:
            assert tokenizer is not None
            positions = np.flatnonzero(encoded.input_ids[0] == tokenizer.mask_id)
            is_asked = positions.size > 0 and 'mlm' in self.model.own_params()
            position = int(positions[0]) if positions.size else None
        return answer_of(self.model, self._outputs_of_text(encoded, position)) if is_asked else None

    def likeliest_output(self, encoded: EncodedText) -> Output:
        """The likeliest class of a classifier, or the likeliest piece at the first `[MASK]`.

        Raises:
          UserError: if the model has neither.
        """
        if self.model.head is None:
            return self.masked_output(encoded)
        return self.class_output(encoded)

    def class_output(self, encoded: EncodedText, label: str | None = None) -> Output:
        """The logit of a class of a fine-tuned model; the likeliest class if none is named.

        Raises:
          UserError: if the model is not a classifier, has no such label, or two outputs of it.
        """
        head = self.model.head
        if head is None or not head.definition.is_text_classifier:
            raise UserError('Only models for classification or regression have a class to explain.')
        if label is not None and label not in head.labels:
            raise UserError(f'There is no label {label!r}; there are {", ".join(head.labels)}.')
        if label is None:
            index = int(self._outputs_of_text(encoded, None).argmax())
            return Output(head.labels[index], index)
        if head.labels.count(label) > 1:
            raise UserError(
                f'{head.labels.count(label)} outputs of the model are called {label!r}; give each '
                f'a name of its own in the config.json of the model (id2label).'
            )
        return Output(label, head.labels.index(label))

    def masked_output(self, encoded: EncodedText, piece: str | None = None) -> Output:
        """The log-probability of a piece at the first `[MASK]`; the likeliest if none is named.

        Raises:
          UserError: if there is no mask, no such piece, or no masked-LM head.
        """
        tokenizer = self.model.tokenizer
        assert tokenizer is not None
        positions = np.flatnonzero(encoded.input_ids[0] == tokenizer.mask_id)
        if not positions.size:
            raise UserError('The text has no [MASK]; put one where the model is to fill a word in.')
        if 'mlm' not in self.model.own_params():
            raise UserError('The model has no masked-LM head.')
        position = int(positions[0])
        if piece is None:
            index = int(self._outputs_of_text(encoded, position).argmax())
        else:
            index = find_piece(tokenizer, piece)
        return Output(piece_text(tokenizer, index), index, position)

    def integrated_gradients(self, encoded: EncodedText, output: Output) -> Attribution:
        """How much each piece contributes to an output, compared with a text of [MASK]s.

        The gradient with respect to the word embeddings is averaged over the straight path from the
        masks to the text by the midpoint rule, with twice as many points until the scores add up to
        the difference within 1e-2 of it (completeness). [CLS], [SEP] and the given masks stay as
        they are.

        Raises:
          UserError: if they do not add up with 1024 points either.
        """
        inputs = self._padded(encoded)
        difference = self._difference_from_masks(encoded, inputs.input_ids.shape[1])
        position, index = np.int32(output.position or 0), output.index
        ends = np.zeros(_BATCH_SIZE, np.float32)
        ends[1] = 1
        values = np.asarray(self._run_outputs(self._params, inputs, difference, ends, position))
        baseline_value, value = (float(x) for x in values[:2, index])
        num_points = _MIN_POINTS
        while True:
            alphas = (np.arange(num_points, dtype=np.float32) + 0.5) / num_points
            total = np.zeros(difference.shape, np.float64)
            for part in alphas.reshape(-1, _BATCH_SIZE):
                gradients = self._run_gradients(
                    self._params, inputs, difference, part, position, np.int32(index)
                )
                total += np.asarray(gradients, np.float64)
            scores = (total / num_points * difference.astype(np.float64)).sum(-1)
            attribution = Attribution(
                encoded, output.name, scores[: len(encoded.pieces)], value, baseline_value,
                num_points, self._unit(output),
            )  # fmt: skip
            if attribution.gap <= COMPLETENESS:
                return attribution
            num_points *= 2
            if num_points > _MAX_POINTS:
                raise UserError(
                    f'The scores of {output.name!r} leave {attribution.gap:.1%} of the difference '
                    f'unexplained with {_MAX_POINTS} points; it is too small to be explained.'
                )

    def _unit(self, output: Output) -> str:
        if output.position is not None:
            return 'log-probability'
        return 'logit' if self.model.head is not None and self.model.head.activation else 'value'

    def _outputs_of_text(
        self, encoded: EncodedText, position: int | None
    ) -> Float[np.ndarray, 'outputs']:
        """Every output for the text itself."""
        inputs = self._padded(encoded)
        difference = self._difference_from_masks(encoded, inputs.input_ids.shape[1])
        alphas = np.ones(_BATCH_SIZE, np.float32)
        values = self._run_outputs(
            self._params, inputs, difference, alphas, np.int32(position or 0)
        )
        return np.asarray(values)[0]

    def _difference_from_masks(
        self, encoded: EncodedText, length: int
    ) -> Float32[np.ndarray, 'length embedding']:
        """The word embeddings of the text minus those of the text of masks."""
        assert self.model.tokenizer is not None
        difference = np.zeros((length, self._table.shape[1]), np.float32)
        of_pieces = self._table[encoded.input_ids[0]] - self._table[self.model.tokenizer.mask_id]
        difference[: len(encoded.pieces)] = np.where(encoded.is_special[:, None], 0, of_pieces)
        return difference

    def _padded(self, encoded: EncodedText) -> _Inputs:
        """The text at the next of the lengths, of those that are compiled if there are any."""
        count = len(encoded.pieces)
        lengths = [x for x in self.lengths if x >= count]
        compiled = [x for x in lengths if x in self._compiled_lengths]
        length = next(iter(compiled or lengths), count)
        if self.lengths and count > self.lengths[-1]:
            raise UserError(
                f'The text has {count} pieces, of which {self.lengths[-1]} can be looked at; '
                f'shorten it.'
            )
        ids, mask, types = (np.zeros((1, length), np.int32) for _ in range(3))
        ids[:, :count], mask[:, :count], types[:, :count] = (
            encoded.input_ids, 1, encoded.token_type_ids,
        )  # fmt: skip
        return _Inputs(ids, mask, types)

    def _layers(self, params: PyTree, inputs: _Inputs) -> EncoderOutput:
        """Attention and hidden states of every layer."""
        encoded: Any = self._albert.apply(
            {'params': params}, *inputs, return_attentions=True, return_hidden_states=True,
            use_pooler=False, method=PretrainingModel.encode,
        )  # fmt: skip
        return encoded

    def _outputs(
        self,
        params: PyTree,
        inputs: _Inputs,
        difference: Float[Array, 'length embedding'],
        alphas: Float[Array, 'points'],
        position: Int[Array, ''],
    ) -> Float[Array, 'points outputs']:
        """The outputs on the path from the masks, at alpha 0, to the text, at alpha 1."""
        return self._perturbed(params, inputs, _perturbation(difference, alphas), position)

    def _perturbed(
        self,
        params: PyTree,
        inputs: _Inputs,
        perturbation: Float[Array, 'points length embedding'],
        position: Int[Array, ''],
    ) -> Float[Array, 'points outputs']:
        """The outputs with something added to the word embeddings."""
        tiled = [jnp.tile(array, (len(perturbation), 1)) for array in inputs]
        if self.model.head is not None:
            model = FinetunedModel(self.model.config.plain, self.model.head)
            batch = dict(zip(_Inputs._fields, tiled, strict=True))
            return model(params, batch, perturbation=perturbation).logits['logits']
        encoded: Any = self._albert.apply(
            {'params': params}, *tiled, perturbation=perturbation, method=PretrainingModel.encode
        )
        hidden = encoded.last_hidden_state.astype(jnp.float32)
        logits: Any = self._albert.apply({'params': params}, hidden, position, method=_mlm_logits)
        assert self.model.tokenizer is not None
        return jax.nn.log_softmax(logits[:, : len(self.model.tokenizer.pieces)])

    def _gradients(
        self,
        params: PyTree,
        inputs: _Inputs,
        difference: Float[Array, 'length embedding'],
        alphas: Float[Array, 'points'],
        position: Int[Array, ''],
        index: Int[Array, ''],
    ) -> Float[Array, 'length embedding']:
        """The sum of an output's gradients at some points of the path."""
        perturbation = _perturbation(difference, alphas)
        return jax.grad(self._total)(perturbation, params, inputs, position, index).sum(0)

    def _total(
        self,
        perturbation: Float[Array, 'points length embedding'],
        params: PyTree,
        inputs: _Inputs,
        position: Int[Array, ''],
        index: Int[Array, ''],
    ) -> Float[Array, '']:
        """The sum of an output over the points."""
        outputs = self._perturbed(params, inputs, perturbation, position)
        return jax.lax.dynamic_index_in_dim(outputs, index, 1, keepdims=False).sum()


def _perturbation(
    difference: Float[Array, 'length embedding'], alphas: Float[Array, 'points']
) -> Float[Array, 'points length embedding']:
    """What to add to a text's word embeddings for points between the masks and the text."""
    return (alphas[:, None, None] - 1) * difference[None]


def _mlm_logits(
    module: PretrainingModel, hidden: Float[Array, 'points length hidden'], position: Int[Array, '']
) -> Float[Array, 'points vocab']:
    """The logits of the masked-LM head at one position."""
    at_position = jax.lax.dynamic_slice_in_dim(hidden, position, 1, axis=1)
    return module.mlm(at_position, module.embeddings.decode)[:, 0]
