"""A model as a function of plain arrays, and as artefacts that run without this package."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array

from albert_jax.cli.errors import UserError
from albert_jax.interop import onnx_graph
from albert_jax.interop.native import Pretrained, complete
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.heads import POOLED, apply_head

PLATFORMS = ('cpu', 'cuda', 'tpu')
# The beams of the end-conditioned head need so many places.
_SHORTEST = 8
# Bytes that each of the formats can hold, with room for the program beside the weights.
_MOST_BYTES = 2**31 - 2**24

_INPUTS = ('input_ids', 'attention_mask', 'token_type_ids')
# Where an answer may be: 1 for the pieces of the passage.
_CAN_ANSWER = 'can_answer'
_QUESTIONS = ('question_answering', 'conditional_question_answering')


@dataclasses.dataclass(frozen=True)
class Portable:
    """A model as a function: arrays by name → arrays by name, in any batch and length.

    All outputs are float32 but positions, which are int32.
    """

    # Of int32 inputs, all [batch, length], or [batch, choices, length] with four choices.
    inputs: tuple[str, ...]
    axes: tuple[str, ...]
    call: Callable[..., dict[str, Array]]


def portable(model: Pretrained) -> Portable:
    """The function of a fine-tuned model, with its head's own answer, or of a pretrained one.

    Without a head: `last_hidden_state`, `pooled_output`, `mlm_logits`, `sop_logits`. In float32, by
    plain products, which every platform has.

    Raises:
      UserError: if the model is too large for a file.
    """
    params = complete(model).params if model.head is None else model.params
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    if size > _MOST_BYTES:
        raise UserError(
            f'The model has {size / 1e9:.1f} GB in float32; a file of any of these formats holds '
            f'less than {_MOST_BYTES / 1e9:.1f}. Take it to Hugging Face with albert_jax.convert.'
        )
    albert = PretrainingModel(model.config.plain)
    if model.head is None:

        def pretrained(input_ids: Array, attention_mask: Array, token_type_ids: Array) -> Any:
            output: Any = albert.apply(
                {'params': params}, input_ids, attention_mask, token_type_ids
            )
            return {
                'last_hidden_state': output.last_hidden_state,
                'pooled_output': output.pooled_output,
                'mlm_logits': output.mlm_logits,
                'sop_logits': output.sop_logits,
            }

        return Portable(_INPUTS, ('batch', 'length'), pretrained)

    kind = model.head.kind
    is_choice, is_question = kind == 'multiple_choice', kind in _QUESTIONS

    def fine_tuned(
        input_ids: Array, attention_mask: Array, token_type_ids: Array, can_answer: Any = None
    ) -> dict[str, Array]:
        arrays = [input_ids, attention_mask, token_type_ids]
        if is_choice:
            arrays = [array.reshape(-1, array.shape[-1]) for array in arrays]
        found: Any = albert.apply(
            {'params': params},
            *arrays,
            use_pooler=kind in POOLED,
            method=PretrainingModel.encode,
        )
        hidden, pooled, _, _ = found
        batch: Any = {}
        if is_question:
            batch = {_CAN_ANSWER: can_answer}
        elif is_choice:
            batch = {'labels': input_ids[:, 0, 0]}
        hidden = hidden.astype(jnp.float32)
        return apply_head(kind, params['head'], hidden, pooled, batch, _kept, is_training=False)

    inputs = (*_INPUTS, _CAN_ANSWER) if is_question else _INPUTS
    axes = ('batch', '4', 'length') if is_choice else ('batch', 'length')
    return Portable(inputs, axes, fine_tuned)


def _kept(features: Array) -> Array:
    return features


def _symbolic(found: Portable, model: Pretrained) -> list[jax.ShapeDtypeStruct]:
    """Shapes of the inputs in any batch and length."""
    symbols = export.symbolic_shape(
        ', '.join(found.axes),
        constraints=[
            'batch >= 1', f'length >= {_SHORTEST}',
            f'length <= {model.config.max_position_embeddings}',
        ],
    )  # fmt: skip
    return [jax.ShapeDtypeStruct(symbols, jnp.int32) for _ in found.inputs]


def stablehlo(model: Pretrained) -> bytes:
    """The function as one artefact for CPU, CUDA and TPU, for `jax.export.deserialize`."""
    found = portable(model)
    shapes = _symbolic(found, model)
    return bytes(export.export(jax.jit(found.call), platforms=PLATFORMS)(*shapes).serialize())


def savedmodel(model: Pretrained, folder: Path) -> None:
    """Writes a TensorFlow SavedModel with the signature `serving_default`.

    Raises:
      UserError: if TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
        from jax.experimental import jax2tf
    except ImportError as error:
        raise UserError(
            "--format=savedmodel needs TensorFlow; run pip install -e '.[tensorflow]' first."
        ) from error
    found = portable(model)
    longest = model.config.max_position_embeddings
    converted = jax2tf.convert(
        found.call,
        polymorphic_shapes=[f'({", ".join(found.axes)})'] * len(found.inputs),
        polymorphic_constraints=[
            'batch >= 1', f'length >= {_SHORTEST}', f'length <= {longest}',
        ],
        native_serialization_platforms=('cpu', 'cuda', 'tpu'),
        with_gradient=False,
    )  # fmt: skip
    shape = [int(axis) if axis.isdigit() else None for axis in found.axes]
    specs = {name: tf.TensorSpec(shape, tf.int32, name=name) for name in found.inputs}

    module: Any = tf.Module()
    module.serve = tf.function(
        lambda **arrays: converted(*[arrays[name] for name in found.inputs]), autograph=False
    )
    signature = module.serve.get_concrete_function(**specs)
    tf.saved_model.save(module, str(folder), signatures={'serving_default': signature})


def onnx(model: Pretrained, file: Path) -> None:
    """Writes an ONNX model whose inputs and outputs have the names of `portable`'s.

    Raises:
      UserError: if jax2onnx is not installed.
    """
    import logging

    try:
        from jax2onnx import to_onnx
    except ImportError as error:
        raise UserError(
            "--format=onnx needs jax2onnx; run pip install -e '.[onnx]' first, in an "
            'environment of its own.'
        ) from error
    # One line for every shape that a loop leaves open; ONNX Runtime works them out.
    logging.getLogger('onnx_ir').setLevel(logging.ERROR)
    found = portable(model)
    shapes = _symbolic(found, model)
    # Traced here: while the exporter converts, it has its own jnp, which wants fixed lengths.
    traced, outputs = jax.make_jaxpr(found.call, return_shape=True)(*shapes)
    converted: Any = to_onnx(
        jaxpr_as_fun(traced),
        inputs=shapes,
        model_name='albert_jax',
        input_names=found.inputs,
        output_names=sorted(outputs),
    )
    onnx_graph.tidy(converted)
    file.write_bytes(converted.SerializeToString())
