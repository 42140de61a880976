"""The plan: on paper here; compiled for TPUs that are not there under `make test-slow`."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from albert_jax import plan
from albert_jax.cli.errors import UserError
from albert_jax.model.config import SIZES
from albert_jax.model.flops import recomputed_flops, train_flops
from albert_jax.planning import arithmetic, environment, estimate, hlo, report, topologies
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import placement
from configs.pretrain import get_config
from tests.conftest import ROOT


def sections(name='base', **loop):
    config = get_config(name)
    config.loop.update(loop)
    return PretrainRun.from_dict(config.to_dict())


def test_paper_counts_the_published_parameters():
    for name, millions in (('base', 11_813_810), ('xxlarge', 223_158_450)):
        assert estimate.on_paper(sections(name), topologies.parse('v5e:4x4')).num_params == millions


def test_bounds_by_hand():
    # xxlarge: 12 layers of 4 H² + 2 H F multiplications a token, forward and twice backward.
    found = estimate.on_paper(sections('xxlarge'), topologies.parse('v5e:4x4'))
    layers = 12 * (4 * 4096**2 + 2 * 4096 * 16384) * 2 * 512 * 4096
    attention = 12 * 2 * 2 * 512 * 4096 * 512 * 4096
    heads = 4096 * 80 * 2 * 128 * (4096 + 30000) + 4096 * 512 * 2 * 128 * 4096
    pooler = 4096 * 2 * 4096 * (4096 + 2)
    assert found.model_flops == pytest.approx(3 * (layers + attention + heads + pooler), rel=0.01)
    assert found.recomputed_flops == layers + attention
    seconds = (found.model_flops + found.recomputed_flops) / (16 * 197e12)
    assert found.flops_seconds == pytest.approx(seconds)
    assert found.num_fsdp == 16
    # Kernels once in bfloat16, gradients once in float32.
    sent = 6 * found.num_params * 15 / 16
    assert found.network_seconds == pytest.approx(sent / 200e9)


def test_muons_products_are_counted_on_each_copy_of_the_state():
    where = topologies.parse('v5e:4x4')
    lamb = estimate.on_paper(sections('xxlarge'), where)
    config = get_config('xxlarge')
    config.optimizer.name = 'muon'
    muon = estimate.on_paper(PretrainRun.from_dict(config.to_dict()), where)
    # Four kernels of attention and the pooler, two of the feed-forward, the projection.
    wide, tall = 6 * 4096**3, 4 * 4096**2 * 16384 + 2 * 4096**3
    thin = 4 * 128**2 * 4096 + 2 * 128**3
    assert muon.update_flops == pytest.approx(5 * (5 * wide + 2 * tall + thin))
    assert lamb.update_flops == 0
    assert muon.model_flops == lamb.model_flops
    # Its kernels have one moment.
    kernels = 5 * 4096**2 + 2 * 4096 * 16384 + 128 * 4096
    assert lamb.optimizer_bytes == 8 * lamb.num_params
    assert muon.optimizer_bytes == lamb.optimizer_bytes - 4 * kernels + 4 * 3
    more = muon.flops_seconds - lamb.flops_seconds
    assert more == pytest.approx(muon.update_flops / 16 / 197e12)


def test_remat_recomputes_what_it_says():
    model = SIZES['albert_base']
    costs = [
        recomputed_flops(PretrainRun.from_dict(_with_remat(name)).albert, 512)
        for name in ('none', 'dense', 'attention', 'full')
    ]
    assert costs == sorted(costs)
    assert costs[-1] < train_flops(model, 512, 80) / 3


def _with_remat(name):
    config = get_config('base')
    config.model.remat = name
    return config.to_dict()


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('v5e-8', "there is no TPU 'v5e-8'"),
        ('v9:2x2', 'KIND one of v2, v3, v4, v5e'),
        ('v5e:3x3', 'nobody makes a slice of v5e in the shape .* v5e:4x4'),
        ('v4:4x4', 'v4:2x2x1, v4:2x2x2'),
    ],
)
def test_topologies_that_nobody_makes(name, message):
    with pytest.raises(UserError, match=message):
        topologies.parse(name)


def test_slices_count_chips_and_devices():
    assert topologies.parse('v5e:4x4').num_devices == 16
    assert topologies.parse('v3:4x4').num_devices == 32
    assert topologies.parse('v4:2x2x4').num_chips == 16


def test_microbatches_to_try_are_divisors_that_about_double():
    assert placement.candidate_microbatches(512) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    assert placement.candidate_microbatches(12) == [1, 2, 4, 12]
    assert placement.candidate_microbatches(1) == [1]


def test_the_first_that_fits_is_taken_and_other_errors_are_not_swallowed():
    tried = []

    def compile_with(number):
        tried.append(number)
        if number < 4:
            raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Ran out of memory')

    assert placement.fewest_that_fit(compile_with, 16) == 4
    assert tried == [1, 2, 4]
    assert placement.fewest_that_fit(compile_with, 2) is None

    def broken(number):
        raise jax.errors.JaxRuntimeError('INTERNAL: something else')

    with pytest.raises(jax.errors.JaxRuntimeError, match='something else'):
        placement.fewest_that_fit(broken, 4)


def test_the_table_and_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(environment, 'prepare_to_compile', lambda is_fast: None)
    path = tmp_path / 'plan.json'
    arguments = ['--config=configs/pretrain.py:large', '--topology=v5p:2x2x1', '--analytic']
    assert plan.main([*arguments, '--price=2', f'--json={path}']) == 0
    text = capsys.readouterr().out
    assert '17.8 M' in text
    assert 'chip-hours' in text
    found = json.loads(path.read_text())
    assert found['on_paper']['num_params'] == 17_847_474
    assert found['compiled'] is None
    hours = found['on_paper']['flops_seconds'] * 125_000 / 3600 * 4
    assert f'{hours * 2:,.2f}' in text
    with pytest.raises(UserError, match='cannot be written'):
        plan.main([*arguments, f'--json={tmp_path}/no/plan.json'])
    with pytest.raises(UserError, match='must be a multiple of 15'):
        estimate.compile_step(
            sections(batch_size=4096, num_microbatches=15, num_devices=1),
            topologies.Slice(topologies.CHIPS['v5e'], (1, 1)),
        )


def test_a_modern_run_is_planned_with_its_update(capsys):
    arguments = ['--config=configs/pretrain.py:base+modern', '--topology=v5e:4x4', '--analytic']
    assert plan.main(arguments) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "muon's" in line]
    # Five times: three of 768 × 768, four of attention's and the pooler's; and two of 768 × 3072.
    square, wide, thin = 6 * 768**3, 4 * 768**2 * 3072 + 2 * 768**3, 4 * 128**2 * 768 + 2 * 128**3
    flops = 5 * (5 * square + 2 * wide + thin)
    assert f'{flops / 1e9:,.2f} GFLOP' in row and 'of the update' in row


@pytest.mark.parametrize(
    ('number', 'shown'),
    [(0, '0.00 GFLOP'), (23.4e9, '23.40 GFLOP'), (1e12, '1.00 TFLOP'), (2.5e18, '2.50 EFLOP')],
)
def test_arithmetic_is_shown_in_a_unit_of_its_size(number, shown):
    assert report._flops(number) == shown


def test_a_plan_says_what_the_whole_run_takes(capsys):
    arguments = ['--config=configs/pretrain.py:mini+modern', '--topology=v5e:1x1', '--analytic']
    assert plan.main([*arguments, '--config.loop.num_steps=1000']) == 0
    shown = {
        name: float(number) * {'G': 1e9, 'T': 1e12}[unit]
        for name, number, unit in re.findall(
            r'│ +(.+?) +│ +([\d.]+) ([GT])FLOP │', capsys.readouterr().out
        )
    }
    of_step = shown['arithmetic a step'] + shown['of the update']
    assert shown['1,000 steps'] == pytest.approx(1000 * of_step, rel=2e-3)


def test_collectives_inside_loops_are_multiplied():
    mesh = Mesh(jax.devices()[:4], ('x',), axis_types=(AxisType.Auto,))

    def body(x):
        def step(carry, _):
            gathered = jax.lax.all_gather(carry, 'x', tiled=True)
            return carry + jax.lax.psum_scatter(gathered, 'x', tiled=True), None

        def outer(carry, _):
            return jax.lax.scan(step, carry, length=5)[0], None

        return jax.lax.scan(outer, x, length=3)[0]

    spec = PartitionSpec('x')
    mapped = jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    x = jax.ShapeDtypeStruct((64, 8), jnp.float32, sharding=NamedSharding(mesh, spec))
    program = hlo.analyse(jax.jit(mapped).lower(x).compile().as_text())
    whole = 64 * 8 * 4
    assert program.num_collectives == {'all-gather': 15, 'reduce-scatter': 15}
    assert program.collective_bytes == {'all-gather': 15 * whole, 'reduce-scatter': 15 * whole}
    assert program.bytes_by_type['reduce-scatter', 'f32'] == 15 * whole
    assert sorted(program.trip_counts) == [3, 5]


def test_cycles_of_a_program_are_summed_with_their_loops():
    cycles = '"estimated_cycles":"{}"'
    text = f"""
%fused (p: f32[8]) -> f32[8] {{
  ROOT %m = f32[8]{{0}} multiply(%p, %p), backend_config={{{cycles.format(999)}}}
}}
%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %f = f32[8]{{0}} fusion(%x), kind=kLoop, calls=%fused, backend_config={{{cycles.format(10)}}}
  %k = f32[8]{{0}} custom-call(%f), custom_call_target="tpu_custom_call"
  ROOT %c = f32[8]{{0}} copy(%k), backend_config={{{cycles.format(2**64 - 1)}}}
}}
%condition (t: (s32[], f32[8])) -> pred[] {{
  %limit = s32[]{{:T(128)}} constant(12)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}}
ENTRY %main (x: f32[8]) -> f32[8] {{
  %w = (s32[], f32[8]{{0}}) while(%t), condition=%condition, body=%body
  ROOT %r = f32[8]{{0}} copy(%w), backend_config={{{cycles.format(7)}}}
}}
"""
    program = hlo.analyse(text)
    assert program.estimated_cycles == 12 * 10 + 7
    assert program.num_kernel_calls == 12
    with pytest.raises(ValueError, match='no ENTRY'):
        hlo.analyse('nothing')


@pytest.mark.parametrize(
    ('line', 'kind', 'size'),
    [
        (
            '(bf16[8,64]{1,0}, bf16[32,64]{1,0}) all-gather-start(%x), replica_groups=[2,4]<=[8]',
            'all-gather',
            32 * 64 * 2,
        ),
        (
            '(f32[64,8]{1,0}, f32[64,8]{1,0}, u32[], u32[]) collective-permute-start(%x)',
            'collective-permute',
            64 * 8 * 4,
        ),
        (
            '((f32[64]{0}), (f32[16]{0}), u32[]) reduce-scatter-start(%x), replica_groups={{0,1}}',
            'reduce-scatter',
            64 * 4,
        ),
        ('(f32[4]{0}, f32[6]{0}) all-reduce-start(%x, %y), to_apply=%add', 'all-reduce', 40),
        ('f32[16]{0} reduce-scatter(%x), replica_groups={{0,1,2,3}}', 'reduce-scatter', 256),
        (
            "f32[16]{0} reduce-scatter(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}",
            'reduce-scatter',
            256,
        ),
    ],
)
def test_bytes_are_those_of_the_whole_array(line, kind, size):
    text = f'ENTRY %main (x: f32[8]) -> f32[8] {{\n  ROOT %c = {line}\n}}\n'
    program = hlo.analyse(text)
    assert program.collective_bytes == {kind: size}
    assert program.num_collectives == {kind: 1}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'num_fsdp': 3}, 'loop.num_fsdp is 3, which does not divide the 16 devices'),
        ({'batch_size': 100}, 'it must be a multiple of 16'),
        ({'num_devices': 8}, 'loop.num_devices is 8, but v5e:4x4 has 16'),
        ({'batch_size': 100, 'num_microbatches': 0}, 'it must be a multiple of 16'),
    ],
)
def test_runs_that_do_not_fit_the_slice_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        estimate.on_paper(sections(**change), topologies.parse('v5e:4x4'))


def test_a_short_phase_costs_its_share():
    whole, short = sections('base'), sections('base+short')
    assert arithmetic.full_steps(whole) == 125_000
    # A token costs less where it attends to fewer, so a short step costs below a quarter.
    assert 12_500 + 112_500 / 4.6 < arithmetic.full_steps(short) < 12_500 + 112_500 / 4
    with pytest.raises(UserError, match='short_phase_steps is 112500; it must be below'):
        sections('base+short', num_steps=5000)


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match=r'\.\[plan\]'):
        topologies.parse('v5e:4x4').devices()


def compiled_plan(tmp_path, name, topology, *overrides):
    """Runs the command as a user does, with the default optimisation."""
    path = tmp_path / 'plan.json'
    environment = {k: v for k, v in os.environ.items() if k not in ('XLA_FLAGS', 'JAX_PLATFORMS')}
    done = subprocess.run(
        [
            sys.executable, '-m', 'albert_jax.plan', f'--config=configs/pretrain.py:{name}',
            f'--topology={topology}', f'--json={path}', *overrides,
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ('topology', 'batch_size', 'num_microbatches'),
    [('v5e:4x4', 4096, 32), ('v4:2x2x4', 4096, 16), ('v5p:2x2x4', 4096, 8), ('v5e:16x16', 4096, 2)],
)
def test_xxlarge_fits_and_sends_little(tmp_path, topology, batch_size, num_microbatches):
    found, _ = compiled_plan(
        tmp_path,
        'xxlarge',
        topology,
        f'--config.loop.batch_size={batch_size}',
        f'--config.loop.num_microbatches={num_microbatches}',
    )
    compiled = found['compiled']
    assert found['fits']
    assert compiled['peak_bytes'] < found['memory_bytes']
    assert sum(compiled['collective_bytes'].values()) <= 2e9
    assert compiled['reduced_types'] == ['f32']
    # One loop over microbatches, and in it one over layers forward and one backward.
    assert sorted(compiled['trip_counts']) == sorted([num_microbatches, 12, 12])
    if topology.startswith('v5e'):
        seconds = compiled['estimated_seconds'] + compiled['kernel_seconds']
        assert seconds <= 1.32 * found['on_paper']['flops_seconds']


@pytest.mark.slow
def test_base_fits_on_one_host(tmp_path):
    found, text = compiled_plan(
        tmp_path, 'base', 'v5e:2x4', '--config.loop.num_microbatches=8',
        '--config.model.attention_probs_dropout_prob=0', '--config.model.hidden_dropout_prob=0',
    )  # fmt: skip
    assert found['fits']
    assert set(found['compiled']['num_collectives']) == {'all-reduce'}
    assert found['compiled']['num_collectives']['all-reduce'] <= 3
    assert found['compiled']['reduced_types'] == ['f32']
    assert 'fits' in text


@pytest.mark.slow
def test_too_big_is_an_answer_with_advice(tmp_path):
    found, text = compiled_plan(
        tmp_path, 'base', 'v5e:2x2', '--config.model.remat=none', '--fast',
        '--config.loop.num_microbatches=1',
    )  # fmt: skip
    assert not found['fits']
    assert 'num_microbatches=0' in text
    assert '--config.model.remat=full' in text


@pytest.mark.slow
def test_the_fewest_microbatches_that_fit_are_found(tmp_path):
    found, _ = compiled_plan(
        tmp_path, 'base', 'v5e:2x2', '--config.loop.num_microbatches=0', '--fast',
    )  # fmt: skip
    assert found['fits']
    assert 1 < found['compiled']['num_microbatches'] <= 32
