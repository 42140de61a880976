"""Explains one text: computes, writes the page or the picture, prints the words."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.notes import note
from albert_jax.interop.native import Pretrained
from albert_jax.interpretability import page, pair_page, pair_picture, picture
from albert_jax.interpretability.answer import NO_ANSWER, Answer
from albert_jax.interpretability.encoding import EncodedText, encode
from albert_jax.interpretability.inspector import Attribution, Inspector, Output
from albert_jax.interpretability.layers import Activations
from albert_jax.interpretability.pair_inspector import (
    Contributions,
    EncodedPair,
    PairInspector,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUM_WORDS = 10
# Source words that are named for each target word.
_NUM_SOURCE_WORDS = 3


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a model does with a text."""

    activations: Activations
    # None where there is no output to explain.
    attribution: Attribution | None
    # None where the model answers something else than classes or a word for a [MASK].
    answer: Answer | None = None

    def page(self, text: str, origin: str) -> str:
        """An HTML file."""
        return page.render(self.activations, self.attribution, self.answer, text, origin)

    def picture(self, text: str) -> 'Figure':
        """A figure of matplotlib."""
        return picture.draw(self.activations, self.attribution, self.answer, text)

    def show(self) -> None:
        """Prints the answer, and then the words that contribute most to it."""
        console = Console(emoji=False)
        answer, attribution = self.answer, self.attribution
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


@dataclasses.dataclass(frozen=True)
class PairExplanation:
    """What a model from text to text does with a source."""

    pair: EncodedPair
    attention: Float[np.ndarray, 'layers heads target source']
    contributions: Contributions

    def page(self, text: str, origin: str) -> str:
        """An HTML file."""
        return pair_page.render(self.pair, self.attention, self.contributions, text, origin)

    def picture(self, text: str) -> 'Figure':
        """A figure of matplotlib."""
        return pair_picture.draw(self.pair, self.attention, self.contributions, text)

    def show(self) -> None:
        """Prints each target word with the source words that contribute most to it."""
        found = self.contributions
        table = Table(title=escape(f'→ {self.pair.target}'))
        table.add_column('target word')
        table.add_column('probability', justify='right')
        table.add_column('source words that contribute most')
        for word, log_prob, scores in zip(
            found.target_words, found.log_probs, found.scores, strict=True
        ):
            best = np.argsort(-np.abs(scores), kind='stable')[:_NUM_SOURCE_WORDS]
            named = ', '.join(f'{found.source_words[n]} {scores[n]:+.2f}' for n in best)
            table.add_row(escape(word), f'{np.exp(log_prob):.0%}', escape(named))
        Console(emoji=False).print(table)


def explain(
    model: Pretrained,
    checkpoint: str,
    text: str,
    pair: str | None,
    label: str | None,
    piece: str | None,
) -> Explanation | PairExplanation:
    """Explains what a model does with a text.

    Args:
      model: as it was read.
      checkpoint: what to call it in messages.
      text: what the model reads.
      pair: a second text, of a task with pairs; of a model from text to text, a target to explain
        in place of the one that it writes.
      label: of a classifier, to explain in place of its likeliest.
      piece: at the first [MASK], to explain in place of the likeliest.

    Raises:
      UserError: if the model or the text cannot be used.
    """
    if model.decoder is not None:
        for name, value in (('label', label), ('piece', piece)):
            if value:
                raise UserError(
                    f'--{name}={value}: {checkpoint} goes from text to text; give a target to '
                    f'explain as the second text.'
                )
        return _explain_pair(model, text, pair)
    inspector = Inspector(model)
    encoded = encode(inspector.model, text, pair)
    output = _output(inspector, encoded, checkpoint, label, piece)
    answer = inspector.answer(encoded)
    activations = inspector.activations(encoded)
    attribution = None if output is None else inspector.integrated_gradients(encoded, output)
    return Explanation(activations, attribution, answer)


def _explain_pair(model: Pretrained, text: str, target: str | None) -> PairExplanation:
    inspector = PairInspector(model)
    encoded = inspector.encode(text, target)
    if encoded.num_cut:
        read = len(encoded.source_pieces) - 2
        note(
            f'The model reads the first {read} of the {read + encoded.num_cut} pieces of the text, '
            f'as in its training; the rest is not explained.'
        )
    return PairExplanation(
        encoded, inspector.cross_attention(encoded), inspector.contributions(encoded)
    )


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


def write(explanation: Explanation | PairExplanation, file: Path, text: str, origin: str) -> None:
    """Writes a page (.html) or a picture (any format of matplotlib).

    Args:
      explanation: of the text.
      file: to write.
      text: as it is shown.
      origin: the checkpoint.

    Raises:
      UserError: if the file cannot be written.
    """
    try:
        if file.suffix == '.html':
            file.write_text(explanation.page(text, origin), encoding='utf-8')
        else:
            explanation.picture(text).savefig(file)
    except OSError as error:
        raise UserError(f'{file} cannot be written: {reason(error)}.') from error
