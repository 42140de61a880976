"""Held-out metrics during a training, which a signal may cut short."""

from collections.abc import Callable, Mapping

from jaxtyping import PyTree

from albert_jax.model.losses import Sum, add, means
from albert_jax.training import distributed
from albert_jax.training.job import HeldOutBatches, TrainingJob
from albert_jax.training.placement import Placement
from albert_jax.training.sharding import put_batch, replicator
from albert_jax.training.step import make_eval_step


def make_evaluate(
    job: TrainingJob,
    placement: Placement,
    frozen: Mapping[str, PyTree],
    was_signalled: Callable[[], bool],
    show: Callable[[int, int], None],
) -> Callable[[PyTree, int], dict[str, float] | None]:
    """The job's evaluation of a step's sharded parameters: means, or None if a signal came first.

    A preemption does not wait for minutes. Where several processes evaluate together none may stop
    alone, so that there it runs to its end.

    Args:
      job: whose evaluation it is.
      placement: of its parameters and batches.
      frozen: weights beside the parameters.
      was_signalled: whether this process is to stop.
      show: told the batches that are done, and how many there are; 0 where that is not known.
    """
    mesh = placement.mesh
    replicate = replicator(mesh)
    is_stopped = (lambda: False) if distributed.is_multiprocess() else was_signalled
    evaluation = job.evaluation
    if not isinstance(evaluation, HeldOutBatches):

        def evaluate_task(params: PyTree, step: int) -> dict[str, float] | None:
            show(0, 0)
            return evaluation(replicate(params), mesh, is_stopped, step)

        return evaluate_task

    eval_step = make_eval_step(job.objective, mesh)
    full_frozen = replicate(dict(frozen))

    def evaluate(params: PyTree, step: int) -> dict[str, float] | None:
        del step
        full_params = {**replicate(params), **full_frozen}
        total: dict[str, Sum] | None = None
        for number in range(evaluation.num_batches):
            if is_stopped():
                return None
            show(number, evaluation.num_batches)
            batch = put_batch(mesh, evaluation.batch(number, placement.rows))
            sums = eval_step(full_params, batch)
            total = sums if total is None else add(total, sums)
        assert total is not None
        return means(total)

    return evaluate
