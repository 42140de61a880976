"""What a model does with a text, as one HTML file that needs no network."""

import html
import re
from pathlib import Path

import numpy as np

from albert_jax.cli.json_output import to_json
from albert_jax.interpretability.answer import NO_ANSWER, Answer
from albert_jax.interpretability.inspector import Attribution
from albert_jax.interpretability.layers import Activations, rollout, similarity_by_depth

_FOLDER = Path(__file__).parent
_MAX_BARS = 10


def shared_parts() -> dict[str, str]:
    """Style and script of the charts, which the service's page has too, by their placeholders."""
    return {
        'CSS': (_FOLDER / 'charts.css').read_text(encoding='utf-8').rstrip(),
        'JS': (_FOLDER / 'charts.js').read_text(encoding='utf-8').rstrip(),
    }


def fill(template: str, parts: dict[str, str]) -> str:
    """A page with its parts in place of `__NAME__`; what is in a part is left as it is."""
    return re.sub('__([A-Z]+)__', lambda mark: parts.get(mark[1], mark[0]), template)


def render(
    activations: Activations,
    attribution: Attribution | None,
    answer: Answer | None,
    text: str,
    origin: str,
) -> str:
    """The page.

    Args:
      activations: of the text.
      attribution: of an output, if there is one to explain.
      answer: of the model, if it has one.
      text: as it is shown.
      origin: the checkpoint.
    """
    distances, angles = similarity_by_depth(activations.hidden)
    layers, heads = activations.attention.shape[:2]
    data = {
        'pieces': activations.encoded.pieces,
        'attention': _rounded(activations.attention),
        'rollout': _rounded(rollout(activations.attention)),
        'distances': _rounded(distances),
        'angles': _rounded(angles),
        'attribution': attribution and attribution.to_json(),
    }
    parts = shared_parts() | {
        'TEXT': html.escape(text),
        'ABOUT': html.escape(f'{origin}: {_counted(layers, "layer")}, {_counted(heads, "head")}'),
        'ANSWER': _answer(answer),
        'WORDS': '' if attribution is None else _words(attribution),
        # What ends the element early would be a tag; JSON can say < otherwise.
        'DATA': to_json(data).replace('<', '\\u003c'),
    }
    return fill((_FOLDER / 'page.html').read_text(encoding='utf-8'), parts)


def _rounded(values: np.ndarray) -> list[object]:
    return values.astype(float).round(5).tolist()


def _counted(number: int, name: str) -> str:
    return f'{number} {name}' if number == 1 else f'{number} {name}s'


def _answer(answer: Answer | None) -> str:
    if answer is None:
        return f'<p>{NO_ANSWER}</p>'
    if answer.kind == 'number':
        return f'<p class="answer">{html.escape(answer.sentence)}</p>'
    bars = ''.join(
        f'<div class="bar"><b>{html.escape(name)}</b><div><i style="width: {chance:.1%}"></i></div>'
        f'<span>{100 * chance:.1f} %</span></div>'
        for name, chance in answer.candidates[:_MAX_BARS]
    )
    start = 'For the first [MASK]: ' if answer.kind == 'mask' else 'Answer: '
    said = f'<p class="answer">{start}{html.escape(answer.text)}</p>'
    return f'<div class="card">{said}{bars}</div>'


def _words(attribution: Attribution) -> str:
    return (
        f'<h2>What speaks for {html.escape(attribution.output)}, and what against</h2>'
        f'<p>{html.escape(attribution.summary)} Green words raise it, orange words lower it '
        f'(integrated gradients; they account for {1 - attribution.gap:.1%} of the difference).</p>'
        '<div class="card" id="contributions"></div>'
    )
