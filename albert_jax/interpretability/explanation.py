"""Explains one text: computes, writes the page or the picture, prints the words."""

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from albert_jax.cli.errors import UserError, reason
from albert_jax.interop import source
from albert_jax.interop.native import check_no_decoder
from albert_jax.interpretability import page, picture
from albert_jax.interpretability.answer import NO_ANSWER, Answer
from albert_jax.interpretability.encoding import EncodedText, encode
from albert_jax.interpretability.inspector import Attribution, Inspector, Output
from albert_jax.interpretability.layers import Activations

_NUM_WORDS = 10


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a model does with a text."""

    activations: Activations
    # None where there is no output to explain.
    attribution: Attribution | None
    # None where the model answers something else than classes or a word for a [MASK].
    answer: Answer | None = None


def explain(
    checkpoint: str, text: str, pair: str | None, label: str | None, piece: str | None
) -> Explanation:
    """Explains what a model does with a text.

    Args:
      checkpoint: anything that `albert_jax.load` takes.
      text: what the model reads.
      pair: a second text, of a task with pairs.
      label: of a classifier, to explain in place of its likeliest.
      piece: at the first [MASK], to explain in place of the likeliest.

    Raises:
      UserError: if the checkpoint or the text cannot be used.
    """
    model = source.read(checkpoint)
    check_no_decoder(model, checkpoint, 'an explanation')
    inspector = Inspector(model)
    encoded = encode(inspector.model, text, pair)
    output = _output(inspector, encoded, checkpoint, label, piece)
    answer = inspector.answer(encoded)
    activations = inspector.activations(encoded)
    attribution = None if output is None else inspector.integrated_gradients(encoded, output)
    return Explanation(activations, attribution, answer)


def _output(
    inspector: Inspector,
    encoded: EncodedText,
    checkpoint: str,
    label: str | None,
    piece: str | None,
) -> Output | None:
    """The output that is asked for, or the likeliest; None where the text has none."""
    model = inspector.model
    output = None
    if model.head is not None and model.head.definition.is_text_classifier:
        output = inspector.class_output(encoded, label)
    elif label:
        raise UserError(f'--label={label}: {checkpoint} is no classifier.')
    elif model.tokenizer is not None and model.tokenizer.mask_id in encoded.input_ids:
        output = inspector.masked_output(encoded, piece)
    if piece and (output is None or model.head is not None):
        raise UserError(f'--piece={piece} is for a text with [MASK] and a pretrained model.')
    return output


def write(explanation: Explanation, file: Path, text: str, origin: str) -> None:
    """Writes a page (.html) or a picture (any format of matplotlib).

    Args:
      explanation: of the text.
      file: to write.
      text: as it is shown.
      origin: the checkpoint.

    Raises:
      UserError: if the file cannot be written.
    """
    parts = explanation.activations, explanation.attribution, explanation.answer
    try:
        if file.suffix == '.html':
            file.write_text(page.render(*parts, text, origin), encoding='utf-8')
        else:
            picture.draw(*parts, text).savefig(file)
    except OSError as error:
        raise UserError(f'{file} cannot be written: {reason(error)}.') from error


def show(explanation: Explanation) -> None:
    """Prints the answer, and then the words that contribute most to it."""
    console = Console(emoji=False)
    answer, attribution = explanation.answer, explanation.attribution
    said = NO_ANSWER if answer is None else answer.sentence
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    if attribution is None:
        return
    table = Table()
    table.add_column('word', overflow='fold')
    table.add_column(Text(f'for (+) or against (-) {attribution.output}'), justify='right')
    for word, score in sorted(attribution.words, key=lambda item: -abs(item[1]))[:_NUM_WORDS]:
        # As it is: brackets in a word are no markup.
        table.add_row(Text(word), f'{score:+.3f}')
    console.print(table)
    console.print(attribution.summary, markup=False, highlight=False)
