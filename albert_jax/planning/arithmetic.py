"""How many floating-point operations a whole run of pretraining takes."""

from albert_jax.interop.native import expected_shapes
from albert_jax.model.flops import train_flops
from albert_jax.runs.runs import PretrainRun
from albert_jax.training.optimizer import update_flops


def full_steps(run: PretrainRun) -> float:
    """Steps of the run, those of a phase on short sequences by their share of the arithmetic."""
    model, pretraining, loop = run.albert, run.pretraining, run.loop
    num_short = pretraining.short_phase_steps
    if not num_short:
        return loop.num_steps
    short_flops, full_flops = (
        train_flops(model, settings.sequence_length, settings.max_predictions_per_sequence)
        for settings in (pretraining.short_phase, pretraining)
    )
    return loop.num_steps - num_short * (1 - short_flops / full_flops)


def run_flops(run: PretrainRun) -> float:
    """FLOPs of the matrix products of a run: of the model and of the optimizer's updates."""
    pretraining, loop = run.pretraining, run.loop
    of_sequence = train_flops(
        run.albert, pretraining.sequence_length, pretraining.max_predictions_per_sequence
    )
    of_update = update_flops(run.optimizer, expected_shapes(run.albert))
    return of_sequence * loop.batch_size * full_steps(run) + of_update * loop.num_steps
