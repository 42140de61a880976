"""How likely a masked language model finds each piece of a sentence, given the others.

Summed over a sentence they are its pseudo-log-likelihood (arXiv 1910.14659). `plain` masks the
piece that is asked for, alone. `word_l2r` masks the pieces to its right in the same word too (arXiv
2305.10588): otherwise the rest of a long word gives its first pieces away, and long words look too
likely.
"""

import collections
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Int32, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import PretrainingModel
from albert_jax.training.sharding import BATCH, REPLICATED, make_mesh, put_batch, replicated

# Lengths are rounded up to a multiple: a program is compiled for each.
_LENGTH_MULTIPLE = 4
# Tokens of a batch on each device; its rows are as many as go into that.
_TOKENS_PER_DEVICE = 4096


class Sentence(NamedTuple):
    """The pieces of a sentence, without special pieces, and which of them start a word."""

    ids: tuple[int, ...]
    starts_word: tuple[bool, ...]


class PieceScores(NamedTuple):
    """Log-probabilities of a sentence's pieces, in nats."""

    word_l2r: Float32[np.ndarray, 'pieces']
    plain: Float32[np.ndarray, 'pieces']


class MaskedRows(NamedTuple):
    """Copies of one sentence, in each of which one piece, or more of its word, is masked.

    The first rows ask for every piece in turn, as word_l2r does; the others for those pieces which
    plain asks for otherwise.
    """

    input_ids: Int32[np.ndarray, 'rows length']
    positions: Int32[np.ndarray, 'rows']
    # The pieces, counted from 0, of the rows behind the first.
    plain_pieces: Int[np.ndarray, 'others']


def masked_rows(sentence: Sentence, cls_id: int, sep_id: int, mask_id: int) -> MaskedRows:
    """The rows that score a sentence, enclosed in [CLS] and [SEP].

    Args:
      sentence: of at least one piece.
      cls_id: of the vocabulary.
      sep_id: of the vocabulary.
      mask_id: of the vocabulary.
    """
    num_pieces = len(sentence.ids)
    pieces = np.arange(num_pieces)
    words = np.cumsum(sentence.starts_word)
    alone = np.eye(num_pieces, dtype=bool)
    with_rest = alone | ((pieces > pieces[:, None]) & (words == words[:, None]))
    plain_pieces = np.flatnonzero(with_rest.sum(1) > 1)
    is_masked = np.concatenate([with_rest, alone[plain_pieces]])
    ids = np.where(is_masked, mask_id, np.array(sentence.ids)).astype(np.int32)
    enclosed = np.pad(ids, ((0, 0), (1, 1)), constant_values=((0, 0), (cls_id, sep_id)))
    positions = np.concatenate([pieces, plain_pieces]).astype(np.int32) + 1
    return MaskedRows(enclosed, positions, plain_pieces)


class PseudoLikelihood:
    """Scores sentences with a pretrained model, on all devices.

    Args:
      model: with its masked-LM head and vocabulary.

    Raises:
      UserError: if it lacks one of the two.
    """

    def __init__(self, model: Pretrained) -> None:
        if model.tokenizer is None or 'mlm' in model.initialised or 'mlm' not in model.params:
            missing = 'vocabulary' if model.tokenizer is None else 'masked-LM head'
            raise UserError(f'The checkpoint has no {missing}; sentences are scored with both.')
        self._tokenizer: AnyTokenizer = model.tokenizer
        # Of a sentence, which [CLS] and [SEP] enclose.
        self.max_pieces: int = model.config.max_position_embeddings - 2
        self._mesh = make_mesh()
        self._model = PretrainingModel(model.config)
        self._params = jax.device_put(model.params, replicated(self._mesh))
        # Mapped and not left to the compiler: it cannot split a Pallas kernel.
        mapped = jax.shard_map(
            self._log_probs,
            mesh=self._mesh,
            in_specs=(REPLICATED, BATCH),
            out_specs=BATCH,
            check_vma=False,
        )
        self._run = jax.jit(mapped, out_shardings=replicated(self._mesh))

    def encode(self, texts: Sequence[str]) -> list[Sentence]:
        """The pieces of texts. One that follows a letter or digit of its word starts none."""
        return [
            Sentence(tuple(encoding.ids), _starts_word(text, encoding.offsets))
            for text, encoding in zip(
                texts, self._tokenizer.encode_with_offsets(texts), strict=True
            )
        ]

    @staticmethod
    def num_rows(sentences: Sequence[Sentence]) -> int:
        """How many rows the model sees to score the sentences, which is what takes the time."""
        # A piece that another of its word follows needs a row of each kind.
        return sum(2 * len(s.ids) - 1 - sum(s.starts_word[1:]) for s in set(sentences))

    def __call__(
        self,
        sentences: Sequence[Sentence],
        advance: Callable[[int], None] = lambda num_rows: None,
    ) -> list[PieceScores]:
        """The scores of sentences; equal sentences get equal scores, to the bit.

        Args:
          sentences: of 1 to `max_pieces` pieces each.
          advance: called with the number of rows that have been scored since the last call.
        """
        by_length: dict[int, list[Sentence]] = collections.defaultdict(list)
        for sentence in dict.fromkeys(sentences):
            length = -(-(len(sentence.ids) + 2) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
            by_length[length].append(sentence)
        scores: dict[Sentence, PieceScores] = {}
        for length, group in sorted(by_length.items()):
            rows = [self._rows(sentence) for sentence in group]
            log_probs = self._score(_batch(group, rows, length, self._tokenizer.pad_id), advance)
            ends = np.cumsum([len(of_one.positions) for of_one in rows])[:-1]
            for sentence, of_one, values in zip(
                group, rows, np.split(log_probs, ends), strict=True
            ):
                word_l2r = values[: len(sentence.ids)]
                plain = word_l2r.copy()
                plain[of_one.plain_pieces] = values[len(sentence.ids) :]
                scores[sentence] = PieceScores(word_l2r, plain)
        return [scores[sentence] for sentence in sentences]

    def _rows(self, sentence: Sentence) -> MaskedRows:
        tokenizer = self._tokenizer
        return masked_rows(sentence, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)

    def _score(
        self, rows: dict[str, np.ndarray], advance: Callable[[int], None]
    ) -> Float32[np.ndarray, 'rows']:
        """The log-probability of each row's target, batch by batch."""
        num_rows, length = rows['input_ids'].shape
        largest = max(1, _TOKENS_PER_DEVICE // length) * self._mesh.size
        # Batches of one size, as few as can be, with as few rows too many as can be.
        num_batches = -(-num_rows // largest)
        per_device = -(-num_rows // (num_batches * self._mesh.size))
        size = per_device * self._mesh.size
        pending: list[Array] = []
        log_probs = []
        for first in range(0, num_rows, size):
            # Behind the last row come copies of it: every batch has one size.
            chosen = np.minimum(np.arange(first, first + size), num_rows - 1)
            batch = {name: values[chosen] for name, values in rows.items()}
            pending.append(self._run(self._params, put_batch(self._mesh, batch)))
            # The next batch is under way while the one before is read.
            if len(pending) > 1:
                log_probs.append(jax.device_get(pending.pop(0)))
                advance(size)
        log_probs += jax.device_get(pending)
        advance(num_rows - size * (len(log_probs) - 1))
        return np.concatenate(log_probs)[:num_rows]

    def _log_probs(self, params: PyTree, batch: dict[str, Array]) -> Float[Array, 'rows']:
        is_token = jnp.arange(batch['input_ids'].shape[1])[None] < batch['lengths'][:, None]
        output: Any = self._model.apply(
            {'params': params},
            batch['input_ids'],
            is_token.astype(jnp.int32),
            masked_positions=batch['positions'][:, None],
            is_right_padded=True,
        )
        log_probs = jax.nn.log_softmax(output.mlm_logits[:, 0])
        return jnp.take_along_axis(log_probs, batch['targets'][:, None], axis=-1)[:, 0]


def _starts_word(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[bool, ...]:
    starts = []
    previous_start, previous_end = -1, -1
    for start, end in offsets:
        # A lone ▁, which stands for no character, belongs to what follows.
        is_glued = start == previous_end and (
            previous_start == previous_end
            or (start < len(text) and _in_word(text[start - 1]) and _in_word(text[start]))
        )
        starts.append(not is_glued)
        previous_start, previous_end = start, end
    return tuple(starts)


def _in_word(character: str) -> bool:
    # Letters, marks and numbers.
    return unicodedata.category(character)[0] in 'LMN'


def _batch(
    sentences: Sequence[Sentence], rows: Sequence[MaskedRows], length: int, pad_id: int
) -> dict[str, np.ndarray]:
    """What the model takes, for all rows of sentences, padded to a length."""
    input_ids = [
        np.pad(
            of_one.input_ids,
            ((0, 0), (0, length - of_one.input_ids.shape[1])),
            constant_values=pad_id,
        )
        for of_one in rows
    ]
    targets = [
        np.array(sentence.ids, np.int32)[of_one.positions - 1]
        for sentence, of_one in zip(sentences, rows, strict=True)
    ]
    lengths = [
        np.full(len(of_one.positions), of_one.input_ids.shape[1], np.int32) for of_one in rows
    ]
    return {
        'input_ids': np.concatenate(input_ids),
        'lengths': np.concatenate(lengths),
        'positions': np.concatenate([of_one.positions for of_one in rows]),
        'targets': np.concatenate(targets),
    }
