"""Whether a model that is to be explained was fine-tuned on single texts or on pairs."""

from albert_jax.cli.errors import UserError
from albert_jax.data.predicate import NO_ROLE
from albert_jax.interop.native import Pretrained
from albert_jax.runs.task import TaskSettings
from albert_jax.tasks.registry import make_task

# Question and passage, text and text_pair.
_NUM_OF_PAIR = 2


def check_second_text(model: Pretrained, second: str | None) -> None:
    """Refuses a second text where the model's task has none, and its lack where it has one.

    A model that was not fine-tuned here may have been so on either.

    Args:
      model: that reads the texts.
      second: the second one, if there is one.

    Raises:
      UserError: if it should not be there, or is missing.
    """
    settings = model.run_section(TaskSettings)
    if model.head is None or settings is None:
        return
    # The second text of semantic roles is the predicate, which is checked with its sentence.
    if NO_ROLE in model.head.labels:
        return
    fields = make_task(settings).fields
    if second is None and len(fields) == _NUM_OF_PAIR:
        raise UserError(
            f'The model was fine-tuned on the task {settings.name} with two texts, '
            f'{" and ".join(fields)}; give the second one, too.'
        )
    if second is not None and not fields:
        raise UserError(
            f'The model was fine-tuned on the task {settings.name} with single texts; leave the '
            f'second one out.'
        )
