"""FLOPs and traffic on paper against the products of the traced model."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import pytest
from jax.extend.core import jaxprs_in_params

from albert_jax.model.albert import PretrainingModel, init_params
from albert_jax.model.flops import adapter_flops, recomputed_flops, train_flops
from albert_jax.model.paths import flatten
from albert_jax.planning import estimate, topologies
from albert_jax.runs.runs import PretrainRun
from configs.pretrain import get_config
from tests import tiny


def _product_flops(jaxpr) -> float:
    """FLOPs of the products in a traced function: those of a scan as often as it turns."""
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == 'dot_general':
            (inner, _), _ = equation.params['dimension_numbers']
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2.0 * math.prod(out) * math.prod(left[axis] for axis in inner)
        times = equation.params.get('length', 1) if equation.primitive.name == 'scan' else 1
        total += times * sum(map(_product_flops, jaxprs_in_params(equation.params)))
    return total


def test_flops_of_adapters_are_those_of_the_traced_model():
    config = tiny.config(attention='einsum', **tiny.RELAXED)
    shapes = (
        jax.eval_shape(lambda: init_params(config, jax.random.key(0))),
        jax.ShapeDtypeStruct((1, 24), jnp.int32),
        jax.ShapeDtypeStruct((1, 5), jnp.int32),
    )
    making = adapter_flops({path: leaf.shape for path, leaf in flatten(shapes[0]).items()})
    assert making > 0
    for function, share in (
        (functools.partial(_total, config), 1 / 3),
        (jax.grad(functools.partial(_total, config)), 1),
    ):
        traced = _product_flops(jax.make_jaxpr(function)(*shapes).jaxpr)
        again = recomputed_flops(config, 24) if share == 1 else 0
        assert traced - again == share * (train_flops(config, 24, 5) + making)


def _total(config, params, input_ids, masked_positions):
    output = PretrainingModel(config).apply(
        {'params': params}, input_ids, masked_positions=masked_positions
    )
    return jnp.square(output.mlm_logits).sum() + jnp.square(output.sop_logits).sum()


@pytest.mark.parametrize(
    'changes',
    [
        {}, {'is_gated': True}, tiny.MODERN, tiny.MODERN | {'inner_group_num': 2},
        tiny.RELAXED | {'depth_adapter_rank': 0},
    ],
    ids=str,
)  # fmt: skip
def test_flops_are_those_of_the_traced_model(changes):
    """Every product, forward, backward and computed again, is counted, and nothing else is."""
    config = tiny.config(attention='einsum', **changes)
    shapes = (
        jax.eval_shape(lambda: init_params(config, jax.random.key(0))),
        jax.ShapeDtypeStruct((1, 24), jnp.int32),
        jax.ShapeDtypeStruct((1, 5), jnp.int32),
    )
    forward = jax.make_jaxpr(functools.partial(_total, config))(*shapes)
    assert 3 * _product_flops(forward.jaxpr) == train_flops(config, 24, 5)
    for remat in ('none', 'dense', 'attention', 'full'):
        own = dataclasses.replace(config, remat=remat)
        trained = jax.make_jaxpr(jax.grad(functools.partial(_total, own)))(*shapes)
        wanted = train_flops(own, 24, 5) + recomputed_flops(own, 24)
        if remat == 'full':
            # Here scores are computed again inside what is computed again; fused kernels do not.
            wanted += 24 * own.num_blocks * 2 * 24 * 16
        assert _product_flops(trained.jaxpr) == wanted, remat


def test_a_gate_adds_a_third_map_to_the_traffic():
    run = PretrainRun.from_dict(get_config('base').to_dict())
    gated = dataclasses.replace(run, model=dataclasses.replace(run.model, is_gated=True))
    where = topologies.parse('v5e:4x4')
    plain, found = (estimate.on_paper(one, where) for one in (run, gated))
    tokens = run.loop.batch_size * run.pretraining.sequence_length * 12 * 4 * 2 / 16
    # Three maps between 768 and 2048 in place of two between 768 and 3072.
    more = tokens * (3 * (768 + 2048) - 2 * (768 + 3072))
    more += 7 * 4 * (found.num_params - plain.num_params)
    seconds = more / where.chip.memory_bandwidth
    assert found.memory_seconds - plain.memory_seconds == pytest.approx(seconds)
    assert found.num_params - plain.num_params == 2 * 2048 - 3072
