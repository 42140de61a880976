"""What a use of shared weights is worth: the recurrence exponent of a sweep over loops.

    L = E + A · (N_once + r^φ · N_core)^−α

is the held-out loss of models that use N_core parameters r times and N_once parameters once, all
trained on the same text (arXiv 2604.21106, for decoders). φ = 0: more uses are worth nothing; φ =
1: a use is worth as much as a layer of its own. Embedding tables are not counted.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from rich.progress import MofNCompleteColumn
from scipy import optimize

from albert_jax.cli.errors import UserError
from albert_jax.cli.progress import Progress
from launch import results
from launch.plan import Uses

LEVEL = 0.95
NUM_RESAMPLES = 1000
_LOSS = 'intrinsic.unpaired_mlm_loss'
_BOUNDS = ((0.01, -1.0), (2.0, 2.0))
_STARTS = [(alpha, phi) for alpha in (0.1, 0.3, 0.8) for phi in (0.0, 0.5, 1.0)]
# As many as the law has, and one to be wrong.
_LEAST_RUNS = 5
# From worth nothing to worth a layer of its own: an interval as wide says nothing.
_TOO_WIDE = 1.0


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained member."""

    name: str
    row: str
    uses: Uses
    loss: float


@dataclasses.dataclass(frozen=True)
class Law:
    """The law with its numbers.

    Args:
      floor: E, in nats.
      scale: A, in nats, with parameters counted in millions.
      alpha: exponent of the parameters.
      phi: exponent of the loops.
    """

    floor: float
    scale: float
    alpha: float
    phi: float

    def loss(self, of: Uses) -> float:
        """The loss of a model, in nats."""
        return self.floor + self.scale * self.millions(of) ** -self.alpha

    def millions(self, of: Uses) -> float:
        """The parameters that a model is worth, in millions."""
        return (of['num_once'] + of['num_loops'] ** self.phi * of['num_core']) / 1e6


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The law that fits best, and φ of as many resamples of the runs."""

    law: Law
    runs: Sequence[Run]
    resampled: Float[np.ndarray, 'resamples']

    @property
    def interval(self) -> tuple[float, float]:
        """Of φ, at LEVEL: percentiles of the bootstrap."""
        tail = 100 * (1 - LEVEL) / 2
        low, high = np.percentile(self.resampled, [tail, 100 - tail])
        return float(low), float(high)

    @property
    def residual(self) -> float:
        """Standard deviation of the losses around the law, in nats."""
        errors = [run.loss - self.law.loss(run.uses) for run in self.runs]
        return math.sqrt(sum(e**2 for e in errors) / max(1, len(errors) - 4))

    @property
    def verdict(self) -> str:
        """What the interval says, in a sentence."""
        low, high = self.interval
        shown = f'φ = {self.law.phi:.2f}, {LEVEL:.0%} interval {low:.2f} to {high:.2f}'
        if high - low >= _TOO_WIDE:
            return f'The data cannot tell what a loop is worth: {shown}.'
        if low <= 0:
            return f'{shown}: nothing shows that more loops are worth anything.'
        if high >= 1:
            return f'{shown}: nothing shows that sharing costs anything.'
        if low > 1:
            return f'{shown}: a loop is worth more than a layer with weights of its own.'
        return (
            f'{shown}: using weights twice is worth {2**self.law.phi:.2f} times as many parameters '
            f'({2**low:.2f} to {2**high:.2f}), where weights of their own would be 2 times.'
        )


def fit(runs: Sequence[Run], starts: Sequence[tuple[float, float]] = tuple(_STARTS)) -> Law:
    """The law that fits losses best, by least squares.

    For every α and φ the best E and A are those of a linear problem, and both are at least 0.

    Args:
      runs: trained on the same text.
      starts: values of α and φ to start from.
    """
    once, core, loops = (
        np.array([run.uses[name] for run in runs], float)
        for name in ('num_once', 'num_core', 'num_loops')
    )
    losses = np.array([run.loss for run in runs])

    def linear(exponents: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        alpha, phi = exponents
        millions = (once + loops**phi * core) / 1e6
        basis = np.stack([np.ones_like(losses), millions**-alpha], axis=1)
        coefficients, _ = optimize.nnls(basis, losses)
        return coefficients, basis @ coefficients - losses

    found = [
        optimize.least_squares(lambda x: linear(x)[1], start, bounds=_BOUNDS) for start in starts
    ]
    best = min(found, key=lambda one: one.cost)
    (floor, scale), _ = linear(best.x)
    return Law(float(floor), float(scale), *map(float, best.x))


def estimate(runs: Sequence[Run], num_resamples: int | None = None, seed: int = 0) -> Estimate:
    """The law of some runs, with a bootstrap over them.

    Args:
      runs: trained on the same text.
      num_resamples: of the bootstrap; NUM_RESAMPLES if left out.
      seed: of its random numbers.

    Raises:
      UserError: if they are too few, or all have as many loops.
    """
    _check(runs)
    law, rng = fit(runs), np.random.default_rng(seed)
    starts = [(law.alpha, law.phi)]
    resampled: list[float] = []
    with Progress(
        'resampling runs', MofNCompleteColumn(), line=_line, total=num_resamples or NUM_RESAMPLES
    ) as progress:
        while len(resampled) < (num_resamples or NUM_RESAMPLES):
            drawn = [runs[index] for index in rng.integers(0, len(runs), len(runs))]
            if not _problem(drawn):
                resampled.append(fit(drawn, starts).phi)
                progress.advance(1)
    return Estimate(law, runs, np.array(resampled))


def _line(done: float, total: float, seconds: float) -> str:
    left = seconds * (total - done) / done
    return f'fitted {done:,.0f} of {total:,.0f} resamples, {left:.0f} s to go'


def _problem(runs: Sequence[Run]) -> str:
    """Why a law cannot be fitted; '' if it can."""
    if len({run.row for run in runs}) < _LEAST_RUNS:
        return f'a law of four numbers needs {_LEAST_RUNS} finished rows or more'
    if len({run.uses['num_loops'] for run in runs}) < 2:
        return 'all of its finished rows go through their layers equally often'
    if len({run.uses['num_core'] for run in runs}) < 2:
        return 'all of its finished rows have layers of one size'
    return ''


def _check(runs: Sequence[Run]) -> None:
    if problem := _problem(runs):
        rows = sorted({run.row for run in runs})
        raise UserError(
            f'--recurrence: {problem}, and there are {len(rows)} ({", ".join(rows) or "none"}).'
        )


def read(root: Path) -> list[Run]:
    """The finished runs of a sweep that the law speaks of.

    Args:
      root: folder of the sweep.

    Raises:
      UserError: if it is not a sweep's, or they were not trained on equally much text.
    """
    plan = results.read_plan(root)
    runs, budgets = [], {}
    for member in plan['members']:
        of_member = member.get('uses')
        loss, _ = results.value(root, plan, member, _LOSS)
        if of_member is not None and loss is not None and math.isfinite(loss):
            runs.append(Run(member['name'], member['row'], of_member, loss))
            budgets[member['name']] = member.get('num_tokens')
    if len(set(budgets.values())) > 1:
        shown = ', '.join(f'{name} {tokens:,}' for name, tokens in list(budgets.items())[:4])
        raise UserError(
            f'--recurrence: the law is of models that were trained on equally many tokens, and '
            f'these were not ({shown}, …).'
        )
    return runs


def markdown(found: Estimate) -> str:
    """The law, its rows and what it says."""
    law = found.law
    lines = [
        f'L = {law.floor:.3f} + {law.scale:.3f} · (N_once + r^φ · N_core)^−{law.alpha:.3f}, N in '
        f'millions; residual {found.residual:.3f} nats over {len(found.runs)} runs.',
        '', found.verdict, '',
        '| row | r | N_core, M | worth, M | loss | by the law |', '|---|---:|---:|---:|---:|---:|',
    ]  # fmt: skip
    for row in dict.fromkeys(run.row for run in found.runs):
        own = [run for run in found.runs if run.row == row]
        of_row = own[0].uses
        loss = sum(run.loss for run in own) / len(own)
        lines.append(
            f'| {row} | {of_row["num_loops"]} | {of_row["num_core"] / 1e6:.3f} | '
            f'{law.millions(of_row):.3f} | {loss:.3f} | {law.loss(of_row):.3f} |'
        )
    interval = f'{len(found.resampled):,} resamples of the runs'
    return '\n'.join([*lines, '', f'The interval is of a bootstrap, {interval}.']) + '\n'


def draw(found: Estimate, path: Path) -> None:
    """Losses over the parameters that models are worth, and the law as a line.

    Args:
      found: the law.
      path: of a PNG.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.add_subplot()
    for num_loops in sorted({run.uses['num_loops'] for run in found.runs}):
        own = [run for run in found.runs if run.uses['num_loops'] == num_loops]
        axes.plot(
            [found.law.millions(run.uses) for run in own], [run.loss for run in own], 'o',
            label=f'used {num_loops} times' if num_loops > 1 else 'used once',
        )  # fmt: skip
    worth = [found.law.millions(run.uses) for run in found.runs]
    line = np.geomspace(min(worth), max(worth), 100)
    axes.plot(line, found.law.floor + found.law.scale * line**-found.law.alpha, color='0.4', lw=1)
    low, high = found.interval
    axes.set_xscale('log')
    axes.set_xlabel(f'millions of parameters that it is worth, φ = {found.law.phi:.2f}')
    axes.set_ylabel('held-out loss (nats)')
    axes.set_title(f'φ between {low:.2f} and {high:.2f} ({LEVEL:.0%})', fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=200)
