"""Documents of a corpus: cleaned, cut into sentences, packed into chunks."""

import collections
import re
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Bool
from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue]

from albert_jax.data.html_text import text_of_html
from albert_jax.data.preparation_settings import PreparationSettings

_CONTROL = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u2060\ufeff\ufffd]')
_KANA = re.compile('[\u3041-\u30ff]')
_HAN = re.compile('[\u4e00-\u9fff]')
# A sentence is cut before a word if that leaves so much of the chunk filled.
_SHORT_CUT = 0.5
# The time of sentencex grows with the square of a paragraph, so that a longer one than this is
# given to it in windows of so many characters.
_AT_ONCE, _WINDOW = 20_000, 4_000


def split_sentences(text: str) -> list[str]:
    """The sentences of a document; a line break always ends one.

    The language (English, Chinese or Japanese rules) is chosen for each paragraph by its script.
    """
    sentences = []
    for paragraph in text.splitlines():
        if not paragraph.strip():
            continue
        language = 'en'
        if not paragraph.isascii():
            is_japanese, is_chinese = _KANA.search(paragraph), _HAN.search(paragraph)
            language = 'ja' if is_japanese else 'zh' if is_chinese else 'en'
        is_long = len(paragraph) > _AT_ONCE
        parts = _segment(language, paragraph) if is_long else segment(language, paragraph)
        sentences += [part for part in parts if part.strip()]
    return sentences


def _segment(language: str, paragraph: str, window: int = _WINDOW) -> Iterator[str]:
    """The sentences of a long paragraph, in time proportional to its length.

    They are the same as of all at once, unless a quotation or a bracket, in which no sentence ends,
    is longer than half a window.

    Args:
      language: whose rules.
      paragraph: of any length.
      window: characters to look at together. Of each window the sentences in its first half are
        taken; the rest is looked at again, with the sentence before and what follows.
    """
    unfinished: list[str] = []
    context = start = 0
    while len(paragraph) - start > window:
        middle, done = start + window // 2, start
        sentences = segment(language, paragraph[context : start + window])
        for sentence in _from(start - context, sentences):
            if done + len(sentence) > middle:
                break
            yield ''.join([*unfinished, sentence])
            unfinished = []
            context, done = done, done + len(sentence)
        if done == start:
            # A sentence of more than half a window: its end is looked for from a word on.
            context = done = paragraph.rfind(' ', start, middle) + 1 or middle
            unfinished.append(paragraph[start:done])
        start = done
    first, *others = _from(start - context, segment(language, paragraph[context:]))
    yield ''.join([*unfinished, first])
    yield from others


def _from(place: int, sentences: Iterable[str]) -> Iterator[str]:
    """What lies behind a place of the text that these sentences make up."""
    end = 0
    for sentence in sentences:
        end += len(sentence)
        if end > place:
            yield sentence[-(end - place) :]


def clean(text: str, settings: PreparationSettings, counts: collections.Counter[str]) -> str:
    """The document's text after the optional cleaning, or '' if it is left out."""
    if settings.html:
        text = text_of_html(text)
        counts['documents_parsed_as_html'] += 1
    if settings.drop_control_characters:
        text, num_dropped = _CONTROL.subn('', text)
        counts['control_characters_dropped'] += num_dropped
    if not text.strip():
        counts['documents_empty'] += 1
        return ''
    if len(text) < settings.min_characters:
        counts['documents_too_short'] += 1
        return ''
    return text


def pack(
    sentences: Iterable[list[int]], capacity: int, starts_word: Bool[np.ndarray, 'vocab']
) -> Iterator[tuple[list[int], list[int]]]:
    """Chunks of whole consecutive sentences: (tokens, end of each sentence).

    A sentence that is longer than a chunk is cut before a word.

    Args:
      sentences: piece ids.
      capacity: tokens of a chunk.
      starts_word: whether a piece starts a word, by its id.
    """
    tokens: list[int] = []
    ends: list[int] = []
    for sentence in sentences:
        for part in _cut(sentence, capacity, starts_word):
            if len(tokens) + len(part) > capacity:
                yield tokens, ends
                tokens, ends = [], []
            tokens += part
            ends.append(len(tokens))
    if tokens:
        yield tokens, ends


def _cut(
    sentence: list[int], capacity: int, starts_word: Bool[np.ndarray, 'vocab']
) -> Iterator[list[int]]:
    """A sentence in parts of at most `capacity`; none of a sentence without pieces."""
    if len(sentence) <= capacity:
        if sentence:
            yield sentence
        return
    is_start = starts_word[sentence]
    begin = 0
    while len(sentence) - begin > capacity:
        words = np.flatnonzero(is_start[begin : begin + capacity + 1])
        last_word = int(words[-1]) if words.size else 0
        length = last_word if last_word > capacity * _SHORT_CUT else capacity
        yield sentence[begin : begin + length]
        begin += length
    yield sentence[begin:]
