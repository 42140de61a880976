"""The answers for texts as a person reads them: the text, what it is, how sure that is."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from albert_jax.tasks.text_examples import TextExample


def answer_table(examples: Sequence[Any], predictions: Sequence[Mapping[str, Any]]) -> Table | None:
    """A row for each text, or None where the examples are not texts or pairs.

    Args:
      examples: of a task.
      predictions: of each, as `Task.predictions` gives them.
    """
    if not all(isinstance(example, TextExample) for example in examples):
        return None
    has_probabilities = all('probabilities' in prediction for prediction in predictions)
    table = Table()
    table.add_column('text', overflow='fold')
    table.add_column('answer')
    if has_probabilities:
        table.add_column('probability', justify='right')
    for example, prediction in zip(examples, predictions, strict=True):
        texts = [example.first] if example.second is None else [example.first, example.second]
        cells = ['\n'.join(texts), *_answer(prediction)]
        # As they are: brackets in a text are no markup.
        table.add_row(*(Text(cell) for cell in cells[: len(table.columns)]))
    return table


def _answer(prediction: Mapping[str, Any]) -> tuple[str, str]:
    """The answer and its probability; a line for each label where there may be several."""
    answer, probabilities = prediction['prediction'], prediction.get('probabilities', {})
    if isinstance(answer, float):
        return f'{answer:.3f}', ''
    labels = answer if isinstance(answer, list) else [answer]
    chances = [f'{probabilities[label]:.1%}' for label in labels if label in probabilities]
    return '\n'.join(labels) or 'none', '\n'.join(chances)
