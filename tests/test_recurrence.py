"""The recurrence exponent: found again in data that were made with a known one, or not claimed."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import optimize

from albert_jax.cli.errors import UserError
from albert_jax.model.flops import train_flops
from configs.sweeps.price_of_sharing import LOOPS, get_sweep
from launch import cost, record, recurrence, report, stages
from launch.plan import Uses
from launch.recurrence import Law, Run, estimate, fit

TRUE = Law(floor=2.5, scale=0.9, alpha=0.25, phi=0.46)


def made_up(law: Law, noise: float, seeds: int = 2) -> list[Run]:
    """Losses of a sweep's rows by a law, with noise."""
    rng = np.random.default_rng(1)
    runs = []
    for core in (50_000, 200_000, 450_000):
        for loops in LOOPS:
            shapes = {(core, loops), (core * loops, 1)}
            for num_core, num_loops in sorted(shapes):
                of_row: Uses = {'num_once': 20_000, 'num_core': num_core, 'num_loops': num_loops}
                for seed in range(seeds):
                    loss = law.loss(of_row) + rng.normal(0, noise)
                    row = f'w{core}-{num_core}-{num_loops}'
                    runs.append(Run(f'{row}-seed{seed}', row, of_row, loss))
    return runs


def test_without_noise_the_law_is_found():
    found = fit(made_up(TRUE, 0))
    for field in dataclasses.fields(Law):
        assert getattr(found, field.name) == pytest.approx(getattr(TRUE, field.name), rel=1e-3)


def test_as_general_least_squares_find_it():
    """All four numbers at once, by another method."""
    runs = made_up(TRUE, 0.01)

    def loss(x):
        law = Law(x[0], math.exp(x[1]), x[2], x[3])
        return sum((law.loss(run.uses) - run.loss) ** 2 for run in runs)

    start = [2.4, 0.0, 0.3, 0.6]
    other = optimize.minimize(loss, start, method='Nelder-Mead', options={'maxiter': 20000,
                              'xatol': 1e-7, 'fatol': 1e-12})  # fmt: skip
    found = fit(runs)
    ours = loss([found.floor, math.log(found.scale), found.alpha, found.phi])
    assert ours <= other.fun * (1 + 1e-4)
    assert found.phi == pytest.approx(other.x[3], abs=0.02)


@pytest.mark.parametrize('phi', [0.1, 0.46, 0.9])
def test_with_noise_the_interval_has_the_truth(phi):
    found = estimate(made_up(dataclasses.replace(TRUE, phi=phi), 0.005), 200)
    low, high = found.interval
    assert low < phi < high and high - low < 0.5
    assert abs(found.law.phi - phi) < 0.15
    assert found.residual == pytest.approx(0.005, rel=0.5)
    assert f'φ = {found.law.phi:.2f}' in found.verdict


def test_what_the_data_cannot_tell_is_said():
    found = estimate(made_up(TRUE, 0.5), 200)
    assert found.verdict.startswith('The data cannot tell what a loop is worth')
    worthless = estimate(made_up(dataclasses.replace(TRUE, phi=0.0), 0.003), 200)
    assert 'nothing shows that more loops are worth anything' in worthless.verdict
    free = estimate(made_up(dataclasses.replace(TRUE, phi=1.0), 0.003), 200)
    assert 'nothing shows that sharing costs anything' in free.verdict


@pytest.mark.parametrize(
    ('kept', 'said'),
    [
        (lambda run: False, 'needs 5 finished rows or more, and there are 0'),
        (lambda run: run.uses['num_loops'] == 1, 'equally often'),
    ],
)
def test_too_little_for_a_law(kept, said):
    with pytest.raises(UserError, match=said):
        estimate([run for run in made_up(TRUE, 0) if kept(run)])


def test_the_sweep_is_what_the_law_speaks_of():
    sweep = dataclasses.replace(get_sweep('mini'), tasks=(), common={}, columns={})
    kept = [member for member in sweep.members if member.name.startswith('w128')]
    of_read = stages.make_members(dataclasses.replace(sweep, members=kept), {})
    members = {member.change.name: member for member in of_read}
    assert len(kept) == 7 + 7 and len(sweep.members) == 3 * 7 + 7
    uses, tokens = cost.uses(of_read), cost.num_tokens(of_read)
    assert set(tokens.values()) == {2400 * 8 * 64}

    def model_flops(name):
        run = members[name].run
        assert run is not None
        return train_flops(run.albert, 64, run.pretraining.max_predictions_per_sequence)

    for r in LOOPS[1:]:
        looped, own = f'w128-loop{r}', f'w128-own{r}'
        assert uses[looped]['num_loops'] == r and uses[own]['num_loops'] == 1
        # As many of the same layers, each with weights of its own.
        assert uses[own]['num_core'] == r * uses[looped]['num_core']
        assert uses[own]['num_once'] == uses[looped]['num_once']
        assert model_flops(own) == model_flops(looped)
    relaxed = [name for name in members if name.startswith('w128-loop4-')]
    assert len(relaxed) == 7
    for name in relaxed:
        assert model_flops(name) == model_flops('w128-loop4')
        assert (name in uses) == ('core2' in name or 'prelude' in name)
    assert uses['w128-loop4-core2']['num_loops'] == 2
    assert len(get_sweep('base').members) == len(sweep.members)


def test_the_report_of_a_sweep(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(recurrence, 'NUM_RESAMPLES', 30)
    runs = made_up(TRUE, 0.01, seeds=1)
    members = []
    for run in runs:
        key = f'{run.name}/intrinsic'
        members.append({
            'name': run.name, 'row': run.row, 'num_params': 1, 'uses': run.uses,
            'num_tokens': 1000, 'fields': {},
            'stages': [{'name': 'intrinsic', 'key': key, 'num_steps': 0}],
        })  # fmt: skip
        (tmp_path / key).mkdir(parents=True)
        (tmp_path / key / 'results.json').write_text(json.dumps({'unpaired_mlm_loss': run.loss}))
        (tmp_path / key / record.STAGE_FILE).write_text(
            json.dumps({'state': 'finished', 'settings': {}})
        )
    plan = {
        'sweep': 'x', 'title': 'x', 'source': '', 'published': {}, 'reference': '',
        'columns': {'intrinsic.unpaired_mlm_loss': 'MLM loss'}, 'members': members,
    }  # fmt: skip
    (tmp_path / 'sweep.json').write_text(json.dumps(plan))
    assert report.main([str(tmp_path), '--recurrence']) == 0
    printed = capsys.readouterr().out
    assert 'φ = 0.' in printed and '| w50000-50000-4 | 4 | 0.050 |' in printed
    assert (tmp_path / 'recurrence.png').stat().st_size > 10_000
    members[0]['num_tokens'] = 2000
    (tmp_path / 'sweep.json').write_text(json.dumps(plan))
    with pytest.raises(UserError, match='equally many tokens, and these were not'):
        recurrence.read(tmp_path)
