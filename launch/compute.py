"""How much compute a member of a sweep needs to learn what another one learns in its whole run."""

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from launch import record
from launch.plan import Plan, PlannedMember
from launch.stages import INTRINSIC, PRETRAIN

# The loss on the same held-out text for every member, however it was trained.
LOSS = 'unpaired_mlm_loss'


def ratio_to_reach(root: Path, plan: Plan, member: PlannedMember) -> tuple[float | None, str]:
    """FLOPs of a member up to the reference's final loss, by those of the reference's whole run.

    The final loss is the mean of `unpaired_mlm_loss` over the seeds of the reference. The member
    reaches it between two evaluations of its held-out text, where the line between them does.

    Args:
      root: folder of the sweep.
      plan: of the sweep, with the reference.
      member: whose compute is asked for.

    Returns:
      The ratio, or None and why there is none.
    """
    row = plan.get('reference')
    references = [other for other in plan['members'] if other['row'] == row]
    if not references:
        return None, 'unknown'
    losses = []
    for reference in references:
        key = f'{reference["name"]}/{INTRINSIC}'
        state = record.read_record(root, key).state
        if state != record.FINISHED:
            return None, f'{reference["name"]} {state}'
        losses.append(record.read_json(root / key / 'results.json')[LOSS])
    total, own = references[0].get('flops'), member.get('flops')
    if not total or not own:
        return None, 'unknown'
    if member['row'] == row:
        return 1.0, ''
    num_steps = next(s['num_steps'] for s in member['stages'] if s['name'] == PRETRAIN)
    key = f'{member["name"]}/{PRETRAIN}'
    curve = [
        (line['step'], line['mlm_loss'])
        for line in record.metric_lines(root, key)
        if line['split'] == 'validation'
    ]
    step = first_step_below(curve, statistics.fmean(losses))
    if step is None:
        state = record.read_record(root, key).state
        return None, 'not reached' if state == record.FINISHED else state
    return own * step / num_steps / total, ''


def first_step_below(curve: Sequence[tuple[int, float]], level: float) -> float | None:
    """The step at which a curve first falls to a level, on the line between two of its points.

    Args:
      curve: steps and losses, by step.
      level: of the loss.

    Returns:
      The step; None if the curve does not come down to the level, or is there from its first point
      on, so that nobody knows since when.
    """
    for (before, above), (after, below) in itertools.pairwise(curve):
        if above > level >= below and math.isfinite(above):
            return before + (after - before) * (above - level) / (above - below)
    return None
