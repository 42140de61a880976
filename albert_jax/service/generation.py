"""What a loaded checkpoint with a decoder can do: write a text, and show where it looked."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.data.target_text import target_text
from albert_jax.interpretability.pair_inspector import PairInspector
from albert_jax.service.abilities import DeviceArrays, Encoded, served_lengths
from albert_jax.service.batching import Arrays, Row, pad_to
from albert_jax.service.packing import packed
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.generation import IS_FINISHED, SCORES, TEXTS
from albert_jax.tasks.generator import Generator


class Generate:
    """A text for each source, written as in the evaluation of the model's training."""

    def __init__(self, answerer: Answerer) -> None:
        assert isinstance(answerer.predictor, Generator)
        self._answerer, self._generator = answerer, answerer.predictor
        self.lengths = served_lengths(answerer.task.settings.max_length)

    @property
    def num_compiled(self) -> int:
        """How many shapes have been compiled."""
        return self._generator.num_compiled

    @property
    def max_new_tokens(self) -> int:
        """The most tokens that it writes, the end among them."""
        return self._generator.limit

    def encode(self, given: Sequence[Any]) -> Encoded:
        """The rows of some sources.

        Args:
          given: mappings with `text`, and `max_new_tokens` or None.

        Raises:
          UserError: if a text has half a character, or the limit is above the model's.
        """
        tokenizer, longest = self._answerer.tokenizer, self.lengths[-1]
        texts = [
            self._answerer.example(value['text'], f'input {number}', '').source
            for number, value in enumerate(given)
        ]
        sources = tokenizer.encode(texts)
        is_cut = [len(ids) + 2 > longest for ids in sources]
        rows = [
            self._row(ids[: longest - 2], number, value['max_new_tokens'])
            for number, (ids, value) in enumerate(zip(sources, given, strict=True))
        ]

        def answers(outputs: Sequence[Arrays]) -> list[Any]:
            return [
                self._answer(output, bool(ids)) | {'source_is_cut': was_cut}
                for output, ids, was_cut in zip(outputs, sources, is_cut, strict=True)
            ]

        return Encoded(rows, answers)

    def _row(self, source: Sequence[int], number: int, limit: int | None) -> Row:
        if limit is not None and limit > self.max_new_tokens:
            raise UserError(
                f'max_new_tokens is {limit}; this model writes at most {self.max_new_tokens}.'
            )
        tokenizer = self._answerer.tokenizer
        ids = [tokenizer.cls_id, *source, tokenizer.sep_id]
        length = next(x for x in self.lengths if x >= len(ids))
        padded = np.full((1, length), tokenizer.pad_id, np.int32)
        padded[0, : len(ids)] = ids
        arrays = {
            'input_ids': padded,
            'attention_mask': (np.arange(length) < len(ids)).astype(np.int32)[None],
            # Of samples, which depend on it: the same in every batch.
            'numbers': np.array([number], np.int32),
            'limits': np.array([limit or self.max_new_tokens], np.int32),
        }
        return Row(arrays, length)

    def _answer(self, output: Arrays, has_source: bool) -> dict[str, Any]:
        """The best text; all of them too, if the model gives several."""
        if not has_source:
            return {'text': '', 'score': None, 'is_finished': True}
        texts = [
            {
                'text': target_text(token_ids, self._answerer.tokenizer),
                'score': float(score),
                'is_finished': bool(is_finished),
            }
            for token_ids, score, is_finished in zip(
                output[TEXTS], output[SCORES], output[IS_FINISHED], strict=True
            )
            # A search may find fewer texts than are asked for.
            if math.isfinite(score)
        ]
        return texts[0] if len(output[TEXTS]) == 1 else texts[0] | {'best': texts}

    def start(self, batch: Mapping[str, np.ndarray]) -> DeviceArrays:
        """The pieces of the texts, with their scores."""
        return self._generator.start(self._answerer.params, batch)

    def compile(self, batch: Mapping[str, np.ndarray]) -> None:
        """Compiles for a batch of these shapes."""
        self._generator.compile(self._answerer.params, batch)

    def example(self, length: int) -> Row:
        """Any row of a length."""
        return pad_to(self._row([], 0, 1), length)


def inspect_pair(inspector: PairInspector, source: str, target: str | None) -> dict[str, Any]:
    """The cross-attention between two texts, the target as if the model had written it.

    Raises:
      UserError: if there is no target, or a text is empty or too long.
    """
    if target is None:
        raise UserError('text_pair is missing: give the text that the model wrote for text.')
    pair = inspector.encode(source, target)
    return {
        'source': list(pair.source_pieces),
        'target': list(pair.target_pieces),
        'cross_attention': packed(inspector.cross_attention(pair)),
    }
