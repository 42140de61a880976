"""A model as a function of plain arrays, and as artefacts that run without this package."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export
from jax.extend.core import jaxpr_as_fun
from jaxtyping import Array, Int, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.interop import onnx_graph
from albert_jax.interop.native import Pretrained, complete
from albert_jax.interop.writing import Writing, writing_of
from albert_jax.model import decoding
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.model.finetuned import FinetunedModel
from albert_jax.model.paths import num_params

PLATFORMS = ('cpu', 'cuda', 'tpu')
# The beams of the end-conditioned head need so many positions.
_SHORTEST = 8
# Bytes that each of the formats can hold, with room for the program beside the weights.
_MOST_BYTES = 2**31 - 2**24

_INPUTS = ('input_ids', 'attention_mask', 'token_type_ids')


@dataclasses.dataclass(frozen=True)
class Portable:
    """A model as a function: arrays by name → arrays by name, in any batch and length.

    All outputs are float32 but positions, pieces and what is yes or no, which are int32.
    """

    # Of int32 inputs, all [batch, length], or [batch, choices, length] with four choices.
    inputs: tuple[str, ...]
    axes: tuple[str, ...]
    max_length: int
    call: Callable[..., Mapping[str, Array]]


def portable(model: Pretrained) -> Portable:
    """The function of a fine-tuned model, with its head's own answer, or of a pretrained one.

    Without a head: `last_hidden_state`, `pooled_output`, `mlm_logits`, `sop_logits`. With a
    decoder: `token_ids`, `scores` and `is_finished` of the texts that it writes. In float32, by
    plain products, which every platform has.

    Raises:
      UserError: if the model is too large for a file, or has a decoder and no vocabulary.
    """
    is_complete = model.head is not None or model.decoder is not None
    params = model.params if is_complete else complete(model).params
    size = 4 * num_params(params)
    if size > _MOST_BYTES:
        raise UserError(
            f'The model has {size / 1e9:.1f} GB in float32; a file of any of these formats holds '
            f'less than {_MOST_BYTES / 1e9:.1f}. Take it to Hugging Face with albert_jax.convert.'
        )
    longest = model.config.max_position_embeddings
    if model.decoder is not None:
        writing = writing_of(model)
        call = functools.partial(
            _written, Seq2SeqModel(model.config.plain, model.decoder), params, writing
        )
        return Portable(_INPUTS[:2], ('batch', 'length'), writing.max_length, call)
    if model.head is None:
        call = functools.partial(_pretrained, PretrainingModel(model.config.plain), params)
        return Portable(_INPUTS, ('batch', 'length'), longest, call)
    definition = model.head.definition
    inputs = (*_INPUTS, *definition.extra_inputs)
    choices = (str(definition.num_choices),) if definition.num_choices > 1 else ()
    call = functools.partial(
        _finetuned, FinetunedModel(model.config.plain, model.head), params, inputs
    )
    return Portable(inputs, ('batch', *choices, 'length'), longest, call)


def _pretrained(
    model: PretrainingModel,
    params: PyTree,
    input_ids: Int[Array, 'batch length'],
    attention_mask: Int[Array, 'batch length'],
    token_type_ids: Int[Array, 'batch length'],
) -> dict[str, Array]:
    output: Any = model.apply({'params': params}, input_ids, attention_mask, token_type_ids)
    return {
        'last_hidden_state': output.last_hidden_state,
        'pooled_output': output.pooled_output,
        'mlm_logits': output.mlm_logits,
        'sop_logits': output.sop_logits,
    }


def _finetuned(
    model: FinetunedModel,
    params: PyTree,
    names: Sequence[str],
    *arrays: Int[Array, 'batch *choices length'],
) -> Mapping[str, Array]:
    batch = dict(zip(names, arrays, strict=True))
    if model.head.definition.num_choices > 1:
        # The encoder takes sequences; the head counts examples by their labels.
        labels = batch['input_ids'][:, 0, 0]
        batch = {name: array.reshape(-1, array.shape[-1]) for name, array in batch.items()}
        batch['labels'] = labels
    return model(params, batch).logits


def _written(
    model: Seq2SeqModel,
    params: PyTree,
    writing: Writing,
    input_ids: Int[Array, 'batch length'],
    attention_mask: Int[Array, 'batch length'],
) -> dict[str, Array]:
    """The whole program of the decoding, which loops by itself."""
    longest = writing.max_new_tokens
    static, dynamic = decoding.plan(model, writing.settings, longest)
    num_sources = input_ids.shape[0]
    generated = decoding.decode(
        model,
        writing.special,
        static,
        params,
        input_ids,
        attention_mask,
        jnp.arange(num_sources),
        jnp.full(num_sources, longest),
        jax.tree.map(jnp.asarray, dynamic),
    )
    return {
        'token_ids': generated.token_ids[..., :longest],
        'scores': generated.scores,
        'is_finished': generated.is_finished.astype(jnp.int32),
    }


def _symbolic(function: Portable) -> list[jax.ShapeDtypeStruct]:
    """Shapes of the inputs in any batch and length."""
    symbols = export.symbolic_shape(
        ', '.join(function.axes),
        constraints=[
            'batch >= 1', f'length >= {_SHORTEST}',
            f'length <= {function.max_length}',
        ],
    )  # fmt: skip
    return [jax.ShapeDtypeStruct(symbols, jnp.int32) for _ in function.inputs]


def stablehlo(model: Pretrained) -> bytes:
    """The function as one artefact for CPU, CUDA and TPU, for `jax.export.deserialize`."""
    function = portable(model)
    shapes = _symbolic(function)
    return bytes(export.export(jax.jit(function.call), platforms=PLATFORMS)(*shapes).serialize())


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
    function = portable(model)
    converted = jax2tf.convert(
        function.call,
        polymorphic_shapes=[f'({", ".join(function.axes)})'] * len(function.inputs),
        polymorphic_constraints=[
            'batch >= 1', f'length >= {_SHORTEST}', f'length <= {function.max_length}',
        ],
        native_serialization_platforms=('cpu', 'cuda', 'tpu'),
        with_gradient=False,
    )  # fmt: skip
    shape = [int(axis) if axis.isdigit() else None for axis in function.axes]
    specs = {name: tf.TensorSpec(shape, tf.int32, name=name) for name in function.inputs}

    module: Any = tf.Module()
    module.serve = tf.function(
        lambda **arrays: converted(*[arrays[name] for name in function.inputs]), autograph=False
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
    function = portable(model)
    shapes = _symbolic(function)
    # Traced here: while the exporter converts, it has its own jnp, which wants fixed lengths.
    traced, outputs = jax.make_jaxpr(function.call, return_shape=True)(*shapes)
    converted: Any = to_onnx(
        jaxpr_as_fun(traced),
        inputs=shapes,
        model_name='albert_jax',
        input_names=function.inputs,
        output_names=sorted(outputs),
    )
    onnx_graph.tidy(converted)
    file.write_bytes(converted.SerializeToString())
