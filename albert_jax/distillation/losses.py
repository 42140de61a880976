"""What a student learns from a teacher: softened answers, hidden states, self-attention relations.

Each loss is a (sum, weight) pair like every other. The teacher's weights lie beside the student's
parameters under `teacher`, and what only the training needs of the student under `distillation`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.interop.native import DISTILLATION_PARAMS
from albert_jax.model import matmul
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import AlbertConfig
from albert_jax.model.finetuned import FinetunedModel
from albert_jax.model.heads import Head
from albert_jax.model.losses import Batch, Sum, soft_target_loss
from albert_jax.model.modules import LayerNorm, Place
from albert_jax.runs.distillation import DistillationSettings
from albert_jax.training.objectives import ModelOutputs

TEACHER = 'teacher'
# Fields of a batch that only the teacher reads, where its vocabulary is another.
TEACHER_PREFIX = 'teacher_'


def hidden_loss(
    student: Float[Array, 'layers batch length student'],
    teacher: Float[Array, 'layers batch length teacher'],
    kernel: Float[Array, 'student teacher'],
    mask: Float[Array, 'batch length'],
    weights: Float[Array, 'batch'],
) -> Sum:
    """Mean squared error of the mapped states, TinyBERT's equation 8; a mean over tokens.

    Args:
      student: its layers.
      teacher: as many of its own.
      kernel: the learned map, one for all layers.
      mask: 1 for a token.
      weights: of the sequences.
    """
    mapped = jnp.dot(student.astype(jnp.float32), kernel)
    errors = jnp.square(mapped - teacher.astype(jnp.float32)).mean((0, -1))
    token_weights = mask * weights[:, None]
    return Sum((errors * token_weights).sum(), token_weights.sum())


def relation_loss(
    student: Float[Array, 'batch length student'],
    teacher: Float[Array, 'batch length teacher'],
    num_heads: int,
    mask: Float[Array, 'batch length'],
    weights: Float[Array, 'batch'],
) -> Sum:
    """KL of the relations softmax(A Aᵀ/√d), equations 3 to 6 of MiniLM v2, for one of Q, K, V.

    A sequence's loss is the mean over its tokens and over heads.

    Args:
      student: queries, keys or values of all its heads side by side.
      teacher: the same of the teacher.
      num_heads: relation heads that both are cut into.
      mask: 1 for a token.
      weights: of the sequences.
    """
    target = _log_relations(teacher, num_heads, mask)
    predicted = _log_relations(student, num_heads, mask)
    terms = jnp.where(mask[:, None, None] > 0, jnp.exp(target) * (target - predicted), 0.0)
    of_tokens = terms.sum(-1).mean(1)
    of_sequences = (of_tokens * mask).sum(1) / jnp.maximum(mask.sum(1), 1.0)
    return Sum((of_sequences * weights).sum(), weights.sum())


def _log_relations(
    vectors: Float[Array, 'batch length width'], num_heads: int, mask: Float[Array, 'batch length']
) -> Float[Array, 'batch heads length length']:
    """log softmax(A Aᵀ/√d) of each head, over the tokens."""
    batch, length, width = vectors.shape
    size = width // num_heads
    heads = vectors.astype(jnp.float32).reshape(batch, length, num_heads, size).swapaxes(1, 2)
    scores = jnp.einsum('bhqd,bhkd->bhqk', heads, heads) / np.sqrt(size)
    return jax.nn.log_softmax(jnp.where(mask[:, None, None] > 0, scores, -1e30))


def attention_vectors(
    config: AlbertConfig,
    params: Mapping[str, Any],
    states: Float[Array, 'batch length hidden'],
    layer: int,
) -> list[Float[Array, 'batch length hidden']]:
    """Queries, keys and values of a layer, all heads side by side, before rotations by position.

    Rotations would not fit relation heads of another size than the model's own.

    Args:
      config: of the model; without inner groups.
      params: of the model.
      states: what the layer is given, before its norm where that stands before the sublayer.
      layer: from 0.
    """
    num_unique = config.num_unique_attention_layers
    index = config.unique_layer_indices(num_unique)[layer][0]
    attention = params['encoder']['layer']['attention']
    dtype = jnp.dtype(config.compute_dtype)
    if config.norm_placement == 'pre':
        norm = LayerNorm(config, num_unique)
        normed: Any = norm.apply(
            {'params': attention['layer_norm']}, states, Place(jnp.asarray(index))
        )
        states = normed
    vectors = []
    for name in ('query', 'key', 'value'):
        kernel, bias = (
            attention[name][part][index] if num_unique > 1 else attention[name][part]
            for part in ('kernel', 'bias')
        )
        product = matmul.dense(states.astype(dtype), kernel, dtype)
        vectors.append(product + bias.reshape(1, 1, -1))
    return vectors


def principal_components(
    table: Float[np.ndarray, 'vocab teacher'], width: int
) -> Float[np.ndarray, 'vocab width']:
    """A table of embeddings in fewer numbers: its principal components, in their own units.

    No other linear map to this width keeps more of the differences between words (Eckart and
    Young, 1936).

    Args:
      table: the teacher's.
      width: of the student's, at most the table's.
    """
    centered = table.astype(np.float64) - table.mean(0, dtype=np.float64)
    _, axes = np.linalg.eigh(centered.T @ centered)
    # The largest last.
    axes = axes[:, : -width - 1 : -1]
    # An axis has two directions; the same one everywhere.
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(width)])
    return (centered @ axes).astype(np.float32)


def compared_layers(num_student: int, num_teacher: int, which: str) -> tuple[list[int], list[int]]:
    """Which hidden states are compared, the embeddings being 0: of the student, of the teacher.

    Args:
      num_student: its layers.
      num_teacher: the teacher's.
      which: all or last.
    """
    if which == 'last':
        return [num_student], [num_teacher]
    layers = list(range(num_student + 1))
    return layers, [-(-layer * num_teacher // num_student) for layer in layers]


@dataclasses.dataclass(frozen=True)
class DistillationLoss:
    """The teacher's part of an objective.

    Args:
      settings: the losses.
      student: its model.
      teacher: the model of the weights under `teacher`.
      head: of both, in a task; None in pretraining.
      order: the teacher's output for each of the student's, where the labels' order differs.
    """

    settings: DistillationSettings
    student: AlbertConfig
    teacher: AlbertConfig
    head: Head | None
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuses shapes that cannot be compared."""
        settings = self.settings
        if not settings.relation_weight:
            return
        for name, config in (('student', self.student), ('teacher', self.teacher)):
            if config.hidden_size % settings.relation_heads:
                raise UserError(
                    f'distillation.relation_heads is {settings.relation_heads}, which does not '
                    f'divide the width of the {name}, {config.hidden_size}.'
                )
            if (
                config.num_layers != config.num_hidden_layers
                or config.depth_adapter_rank
                or (config.depth_norms or config.depth_embedding)
            ):
                raise UserError(
                    f'distillation.relation_weight is {settings.relation_weight}, but the {name} '
                    f'has a prelude, a coda or weights of each depth, which relations are not '
                    f'computed with; set it to 0.'
                )
            if config.inner_group_num > 1:
                raise UserError(
                    f'distillation.relation_weight is {settings.relation_weight}, but the {name} '
                    f'has inner groups, between which there is nothing to compare; set it to 0.'
                )
        if settings.relation_layer > self.teacher.num_hidden_layers:
            raise UserError(
                f'distillation.relation_layer is {settings.relation_layer}; the teacher has '
                f'{self.teacher.num_hidden_layers} layers.'
            )

    @property
    def label_weight(self) -> float:
        """Factor of the labels' own losses."""
        return self.settings.label_weight

    @property
    def needs_hidden_states(self) -> bool:
        """Whether the student has to show the output of every layer."""
        return self.settings.compares_tokens

    @property
    def loss_weights(self) -> dict[str, float]:
        """Factor of each loss that the teacher adds."""
        settings = self.settings
        weights = {
            'soft_loss': settings.soft_weight,
            'hidden_loss': settings.hidden_weight,
            'relation_loss': settings.relation_weight,
        }
        return {name: weight for name, weight in weights.items() if weight}

    def init_params(self, key: Key[Array, '']) -> dict[str, Any]:
        """Parameters that the student has while it learns and not afterwards."""
        if not self.settings.hidden_weight:
            return {}
        normal = jax.nn.initializers.truncated_normal(self.student.initializer_range)
        shape = (self.student.hidden_size, self.teacher.hidden_size)
        return {
            DISTILLATION_PARAMS: {'hidden': {'kernel': normal(jax.random.fold_in(key, 11), shape)}}
        }

    def totals(self, batch: Batch) -> dict[str, Array]:
        """The weight of each loss, known before any of them."""
        sequences = _sequence_weights(batch)
        if self.head is None:
            soft_weight = batch['masked_weights'].sum()
        else:
            soft_weight = self.head.definition.loss_weight(batch)
        tokens = (batch['attention_mask'].astype(jnp.float32) * sequences[:, None]).sum()
        totals = {
            'soft_loss': soft_weight,
            'hidden_loss': tokens,
            'relation_loss': sequences.sum(),
        }
        return {name: totals[name] for name in self.loss_weights}

    def sums(
        self, params: Mapping[str, Any], batch: Batch, outputs: ModelOutputs
    ) -> dict[str, Sum]:
        """The losses.

        Args:
          params: the student's, and the teacher's under `teacher`.
          batch: what both are given; the teacher's own ids under `teacher_input_ids` and so on,
            where its vocabulary is another.
          outputs: what the student made of it.
        """
        settings = self.settings
        teacher = self._ask(params[TEACHER], batch)
        sums: dict[str, Sum] = {}
        if settings.soft_weight:
            sums['soft_loss'] = self._soft_loss(outputs.logits, teacher.logits, batch)
        if settings.hidden_weight:
            kernel = params[DISTILLATION_PARAMS]['hidden']['kernel']
            sums['hidden_loss'] = self._hidden_loss(outputs, teacher, kernel, batch)
        if settings.relation_weight:
            sums['relation_loss'] = self._relation_loss(params, outputs, teacher, batch)
        return sums

    def _soft_loss(
        self, student: Mapping[str, Array], teacher: Mapping[str, Array], batch: Batch
    ) -> Sum:
        temperature = self.settings.temperature
        if self.head is not None:
            return self.head.definition.soft_target_loss(student, teacher, batch, temperature)
        return soft_target_loss(
            student['mlm'], teacher['mlm'], temperature, batch['masked_weights']
        )

    def _hidden_loss(
        self,
        student: ModelOutputs,
        teacher: ModelOutputs,
        kernel: Float[Array, 'student teacher'],
        batch: Batch,
    ) -> Sum:
        assert student.hidden_states is not None and teacher.hidden_states is not None
        student_layers, teacher_layers = compared_layers(
            self.student.num_layers,
            self.teacher.num_layers,
            self.settings.hidden_layers,
        )
        return hidden_loss(
            student.hidden_states[np.array(student_layers)],
            teacher.hidden_states[np.array(teacher_layers)],
            kernel,
            batch['attention_mask'].astype(jnp.float32),
            _sequence_weights(batch),
        )

    def _relation_loss(
        self,
        params: Mapping[str, Any],
        student: ModelOutputs,
        teacher: ModelOutputs,
        batch: Batch,
    ) -> Sum:
        """The mean over queries, keys and values."""
        assert student.hidden_states is not None and teacher.hidden_states is not None
        layer = (self.settings.relation_layer or self.teacher.num_hidden_layers) - 1
        last = self.student.num_hidden_layers - 1
        mask, weights = batch['attention_mask'].astype(jnp.float32), _sequence_weights(batch)
        pairs = zip(
            attention_vectors(self.student, params, student.hidden_states[last], last),
            attention_vectors(self.teacher, params[TEACHER], teacher.hidden_states[layer], layer),
            strict=True,
        )
        losses = [
            relation_loss(of_student, of_teacher, self.settings.relation_heads, mask, weights)
            for of_student, of_teacher in pairs
        ]
        total = sum(loss.sum for loss in losses[1:]) + losses[0].sum
        return Sum(total / len(losses), losses[0].weight)

    def _ask(self, params: Mapping[str, Any], batch: Batch) -> ModelOutputs:
        """The teacher's logits and hidden states."""
        own = {
            k.removeprefix(TEACHER_PREFIX): v
            for k, v in batch.items()
            if k.startswith(TEACHER_PREFIX)
        }
        batch = {**batch, **own}
        if self.head is None:
            output: Any = PretrainingModel(self.teacher).apply(
                {'params': params},
                batch['input_ids'],
                batch['attention_mask'],
                batch['token_type_ids'],
                batch['masked_positions'],
                return_hidden_states=self.needs_hidden_states,
                is_right_padded=True,
            )
            return ModelOutputs({'mlm': output.mlm_logits}, output.hidden_states)
        outputs = FinetunedModel(self.teacher, self.head)(
            params, batch, is_training=True, return_hidden_states=self.needs_hidden_states
        )
        logits = outputs.logits
        if self.order:
            logits = {name: x[..., np.array(self.order)] for name, x in logits.items()}
        return ModelOutputs(logits, outputs.hidden_states)


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A teacher's part of a training."""

    loss: DistillationLoss
    # The teacher's weights, under `teacher`.
    frozen: Mapping[str, Any]
    # What must be the same for a training to resume.
    resume_fingerprint: Mapping[str, Any]
    # What the student's word embeddings start from; None for its own.
    word_embeddings: Float[np.ndarray, 'vocab embedding'] | None = None

    def extend_init(self, init: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """An initialisation that also makes the parameters that only the distillation needs.

        Args:
          init: (key, …) → the student's parameters.

        Returns:
          The same, with the teacher's word embeddings where there are `word_embeddings`.
        """

        return functools.partial(self._init, init)

    def _init(self, init: Callable[..., Any], key: Key[Array, ''], *start: Any) -> dict[str, Any]:
        params = {**init(key, *start), **self.loss.init_params(key)}
        if self.word_embeddings is None:
            return params
        word = {'word': {'embedding': jnp.asarray(self.word_embeddings)}}
        return params | {'embeddings': params['embeddings'] | word}


def _sequence_weights(batch: Batch) -> Float[Array, 'sequences']:
    """1 for a sequence that counts, 0 for one that only fills the batch."""
    if 'weights' in batch:
        weights, num_sequences = batch['weights'], batch['input_ids'].shape[0]
        return jnp.repeat(weights, num_sequences // weights.shape[0])
    return (batch['masked_weights'].sum(1) > 0).astype(jnp.float32)
