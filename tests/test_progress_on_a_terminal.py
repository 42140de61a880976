"""What a training shows on a terminal of 80 columns."""

import functools
import io

import pytest
from rich.console import Console

from albert_jax.training import telemetry
from albert_jax.training.telemetry import Telemetry, Work


@pytest.fixture
def screen(monkeypatch):
    """What rich writes to a terminal of 80 columns."""
    file = io.StringIO()
    terminal = functools.partial(
        Console, force_terminal=True, width=80, file=file, legacy_windows=False
    )
    monkeypatch.setattr(telemetry, 'Console', terminal)
    return file


def lines(screen: io.StringIO) -> list[str]:
    from rich.text import Text

    text = Text.from_ansi(screen.getvalue().replace('\r', '\n')).plain
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_step_loss_accuracy_speed_and_time_left_fit_into_80_columns(screen, tmp_path, monkeypatch):
    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(telemetry.time, 'monotonic', lambda: float(next(clock)))
    metrics = {
        'loss': 6.64412345, 'mlm_loss': 6.0, 'mlm_accuracy': 0.1074, 'sop_loss': 0.69,
        'sop_accuracy': 0.5, 'learning_rate': 1e-3, 'skipped_steps': 0,
    }  # fmt: skip
    with Telemetry(tmp_path, 124_000, 125_000, 4_096, lambda _: Work(512, 1e9), 8) as log:
        log.start_clock(124_001)
        log.step_done(124_500)
        log.train_line(124_500, metrics)
        log._progress.refresh()
    shown = [line for line in lines(screen) if 'loss' in line]
    assert shown, lines(screen)
    for line in shown:
        assert len(line) <= 80 and '…' not in line, line
        assert 'step 124500/125000' in line and 'ETA' in line
        assert 'loss 6.644  accuracy 10.7%' in line and line.endswith('seq/s')


def test_other_phases_have_their_word(screen, tmp_path):
    with Telemetry(tmp_path, 0, 10, 4, lambda _: Work(8, 1e9), 1) as log:
        with log.compiling():
            log._progress.refresh()
        log.step_done(5)
        log.train_line(5, {'loss': 3.0})
        log.evaluating(3, 16)
        log._progress.refresh()
        log.eval_line(5, {'mlm_loss': 2.5})
        log._progress.refresh()
    shown = lines(screen)
    assert any(line.startswith('step 0/10') and line.endswith('compiling') for line in shown)
    assert any(line.startswith('Compiled in ') for line in shown)
    assert any(line.startswith('step 5/10') and line.endswith('evaluating 3/16') for line in shown)
    # Then the held-out metrics, and the training's again.
    assert 'step 5, held out: mlm_loss 2.5' in shown
    assert 'loss 3' in shown[-1] and 'evaluating' not in shown[-1]
