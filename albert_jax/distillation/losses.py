"""What a student learns from a teacher: softened answers, hidden states, self-attention relations.

Each loss is a (sum, weight) pair like every other. The teacher's weights lie beside the student's
parameters under `teacher`, and what only the training needs of the student under `distillation`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from albert_jax.cli.errors import UserError
from albert_jax.interop.native import DISTILLATION_PARAMS
from albert_jax.model import matmul
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.config import AlbertConfig
from albert_jax.model.heads import POOLED, Head, apply_head, dropout_of, loss_weight
from albert_jax.model.losses import Batch, Sum
from albert_jax.runs.distillation import DistillationSettings
from albert_jax.training.objectives import ModelOutputs

TEACHER = 'teacher'
# Fields of a batch that only the teacher reads, where its vocabulary is another.
TEACHER_PREFIX = 'teacher_'
# Masked scores, of places that cannot be an answer, are this low.
_IMPOSSIBLE = -1e29


def soft_loss(
    student: Float[Array, '*batch classes'],
    teacher: Float[Array, '*batch classes'],
    temperature: float,
    weights: Float[Array, '*batch'],
) -> Sum:
    """τ² KL(softmax(teacher/τ) ‖ softmax(student/τ)) in nats, section 2 of arXiv 1503.02531."""
    target = jax.nn.log_softmax(teacher.astype(jnp.float32) / temperature)
    found = jax.nn.log_softmax(student.astype(jnp.float32) / temperature)
    # What the teacher gives no probability at all adds nothing, whatever the student says.
    terms = jnp.where(target > _IMPOSSIBLE / temperature, jnp.exp(target) * (target - found), 0.0)
    return Sum(temperature**2 * (terms.sum(-1) * weights).sum(), weights.sum())


def soft_answer_loss(
    kind: str,
    student: Mapping[str, Array],
    teacher: Mapping[str, Array],
    batch: Batch,
    temperature: float,
) -> Sum:
    """`soft_loss` of a head's logits, with the weights of its own loss.

    A regression's is the squared difference; questions take the mean over start and end, and half
    of the answerability's, as `head_loss` does.

    Args:
      kind: one of `about.HEAD_KINDS`.
      student: its logits in training.
      teacher: the teacher's.
      batch: with `weights`, and labels as the head has them.
      temperature: τ.
    """
    weights = batch['weights']
    if kind == 'token_classification':
        weights = jnp.where(batch['token_labels'] >= 0, weights[:, None], 0.0)
    if kind in ('question_answering', 'conditional_question_answering'):
        ends = [soft_loss(student[n], teacher[n], temperature, weights) for n in ('start', 'end')]
        total = (ends[0].sum + ends[1].sum) / 2
        if kind == 'conditional_question_answering':
            mine, theirs = (
                jnp.stack([jnp.zeros_like(logits), logits], -1)
                for logits in (student['impossible'], teacher['impossible'])
            )
            total = total + soft_loss(mine, theirs, temperature, weights).sum / 2
        return Sum(total, weights.sum())
    if jnp.issubdtype(batch.get('labels', jnp.zeros(0, jnp.int32)).dtype, jnp.floating):
        losses = jnp.square(student['logits'][:, 0] - teacher['logits'][:, 0])
        return Sum((losses * weights).sum(), weights.sum())
    return soft_loss(student['logits'], teacher['logits'], temperature, weights)


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

    def log_relations(vectors: Array) -> Array:
        batch, length, width = vectors.shape
        size = width // num_heads
        cut = vectors.astype(jnp.float32).reshape(batch, length, num_heads, size).swapaxes(1, 2)
        scores = jnp.einsum('bhqd,bhkd->bhqk', cut, cut) / np.sqrt(size)
        return jax.nn.log_softmax(jnp.where(mask[:, None, None] > 0, scores, -1e30))

    target, found = log_relations(teacher), log_relations(student)
    terms = jnp.where(mask[:, None, None] > 0, jnp.exp(target) * (target - found), 0.0)
    of_tokens = terms.sum(-1).mean(1)
    of_sequences = (of_tokens * mask).sum(1) / jnp.maximum(mask.sum(1), 1.0)
    return Sum((of_sequences * weights).sum(), weights.sum())


def attention_vectors(
    config: AlbertConfig,
    params: Mapping[str, Any],
    states: Float[Array, 'batch length hidden'],
    layer: int,
) -> list[Float[Array, 'batch length hidden']]:
    """Queries, keys and values of a layer, all heads side by side.

    Args:
      config: of the model; without inner groups.
      params: of the model.
      states: what the layer is given.
      layer: from 0.
    """
    copies = config.num_unique_attention_layers
    copy = config.unique_layer_indices(copies)[layer][0]
    attention = params['encoder']['layer']['attention']
    dtype = jnp.dtype(config.compute_dtype)
    found = []
    for name in ('query', 'key', 'value'):
        kernel, bias = (
            attention[name][part][copy] if copies > 1 else attention[name][part]
            for part in ('kernel', 'bias')
        )
        product = matmul.dense(states.astype(dtype), kernel, dtype)
        found.append(product + bias.reshape(1, 1, -1))
    return found


def principal_words(
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


def teacher_layers(num_student: int, num_teacher: int, which: str) -> tuple[list[int], list[int]]:
    """Which hidden states are compared, the embeddings being 0: of the student, of the teacher.

    Args:
      num_student: its layers.
      num_teacher: the teacher's.
      which: all or last.
    """
    if which == 'last':
        return [num_student], [num_teacher]
    mine = list(range(num_student + 1))
    return mine, [-(-layer * num_teacher // num_student) for layer in mine]


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
        named = {
            'soft_loss': settings.soft_weight,
            'hidden_loss': settings.hidden_weight,
            'relation_loss': settings.relation_weight,
        }
        return {name: weight for name, weight in named.items() if weight}

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
            of_soft = batch['masked_weights'].sum()
        else:
            of_soft = loss_weight(self.head.kind, batch)
        tokens = (batch['attention_mask'].astype(jnp.float32) * sequences[:, None]).sum()
        named = {
            'soft_loss': of_soft,
            'hidden_loss': tokens,
            'relation_loss': sequences.sum(),
        }
        return {name: named[name] for name in self.loss_weights}

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
        logits, states = self._ask(params[TEACHER], batch)
        found: dict[str, Sum] = {}
        if settings.soft_weight and self.head is None:
            found['soft_loss'] = soft_loss(
                outputs.logits['mlm'], logits['mlm'], settings.temperature, batch['masked_weights']
            )
        elif settings.soft_weight:
            assert self.head is not None
            found['soft_loss'] = soft_answer_loss(
                self.head.kind, outputs.logits, logits, batch, settings.temperature
            )
        if not self.needs_hidden_states:
            return found
        assert states is not None and outputs.hidden_states is not None
        mask, weights = batch['attention_mask'].astype(jnp.float32), _sequence_weights(batch)
        if settings.hidden_weight:
            mine, theirs = teacher_layers(
                self.student.num_hidden_layers,
                self.teacher.num_hidden_layers,
                settings.hidden_layers,
            )
            found['hidden_loss'] = hidden_loss(
                outputs.hidden_states[np.array(mine)],
                states[np.array(theirs)],
                params[DISTILLATION_PARAMS]['hidden']['kernel'],
                mask,
                weights,
            )
        if settings.relation_weight:
            layer = (settings.relation_layer or self.teacher.num_hidden_layers) - 1
            last = self.student.num_hidden_layers - 1
            pairs = zip(
                attention_vectors(self.student, params, outputs.hidden_states[last], last),
                attention_vectors(self.teacher, params[TEACHER], states[layer], layer),
                strict=True,
            )
            losses = [
                relation_loss(student, teacher, settings.relation_heads, mask, weights)
                for student, teacher in pairs
            ]
            total = sum(loss.sum for loss in losses[1:]) + losses[0].sum
            found['relation_loss'] = Sum(total / len(losses), losses[0].weight)
        return found

    def _ask(
        self, params: Mapping[str, Any], batch: Batch
    ) -> tuple[dict[str, Array], Float[Array, 'layers batch length hidden'] | None]:
        """The teacher's logits and hidden states."""
        model = PretrainingModel(self.teacher)
        own = {
            k.removeprefix(TEACHER_PREFIX): v
            for k, v in batch.items()
            if k.startswith(TEACHER_PREFIX)
        }
        batch = {**batch, **own}
        inputs = batch['input_ids'], batch['attention_mask'], batch['token_type_ids']
        if self.head is None:
            output: Any = model.apply(
                {'params': params},
                *inputs,
                batch['masked_positions'],
                return_hidden_states=self.needs_hidden_states,
            )
            return {'mlm': output.mlm_logits}, output.hidden_states
        kind = self.head.kind
        encoded: Any = model.apply(
            {'params': params},
            *inputs,
            return_hidden_states=self.needs_hidden_states,
            use_pooler=kind in POOLED,
            method='encode',
        )
        hidden, pooled, embedded, (layers, _) = encoded
        nothing = dropout_of(0.0, None, jnp.zeros(0, jnp.int32))
        logits = apply_head(kind, params['head'], hidden, pooled, batch, nothing, True)
        if self.order:
            logits = {name: x[..., np.array(self.order)] for name, x in logits.items()}
        states = None if layers is None else jnp.concatenate([embedded[None], layers])
        return logits, states


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

    def extend_init(self, init: Callable[..., Any]) -> Callable[..., Any]:
        """An initialisation that also makes the parameters that only the distillation needs.

        Args:
          init: (key, …) → the student's parameters.

        Returns:
          The same, with the teacher's word embeddings where there are `word_embeddings`.
        """

        def init_with_teacher(key: Key[Array, ''], *start: Any) -> dict[str, Any]:
            params = {**init(key, *start), **self.loss.init_params(key)}
            if self.word_embeddings is None:
                return params
            words = {'word': {'embedding': jnp.asarray(self.word_embeddings)}}
            return params | {'embeddings': params['embeddings'] | words}

        return init_with_teacher


def _sequence_weights(batch: Batch) -> Float[Array, 'sequences']:
    """1 for a sequence that counts, 0 for one that only fills the batch."""
    if 'weights' in batch:
        weights, num_sequences = batch['weights'], batch['input_ids'].shape[0]
        return jnp.repeat(weights, num_sequences // weights.shape[0])
    return (batch['masked_weights'].sum(1) > 0).astype(jnp.float32)
