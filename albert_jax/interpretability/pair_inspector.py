"""What a model from text to text did with a source: where it looked, and which words mattered.

A source word's contribution to a target word is how much less likely the target word is, given the
target words before it, if the source word is left out (arXiv 1612.08220). It needs no point of
comparison such as [MASK], which a model from text to text may never have been trained with.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.data.target_text import pieces_before_end, target_text
from albert_jax.interop.native import Pretrained
from albert_jax.interop.writing import writing_of
from albert_jax.interpretability.encoding import word_places
from albert_jax.model import decoding
from albert_jax.model.decoder import Seq2SeqModel
from albert_jax.training.programs import Programs

# Sources that are computed as one batch.
_BATCH_SIZE = 8


@dataclasses.dataclass(frozen=True)
class EncodedPair:
    """A source as the encoder reads it, and the pieces that the decoder writes for it."""

    # [CLS] text [SEP].
    source_ids: Int[np.ndarray, 'source']
    # Without the [CLS] that the decoder starts from, and with its [SEP] unless it was cut.
    target_ids: Int[np.ndarray, 'target']
    source_pieces: tuple[str, ...]
    target_pieces: tuple[str, ...]
    # Those of the pieces that were added to the vocabulary; each is a word.
    added_tokens: frozenset[str]
    # What the target's pieces say.
    target: str
    # Pieces of the source that the model does not read, because there are too many.
    num_cut: int = 0


@dataclasses.dataclass(frozen=True)
class Contributions:
    """How much each word of a source contributes to each word of its target."""

    source_words: tuple[str, ...]
    target_words: tuple[str, ...]
    # log p of each target word, given the source and the target words before it.
    log_probs: Float[np.ndarray, 'target']
    # What a log p loses if the source word is left out.
    scores: Float[np.ndarray, 'target source']


class PairInspector:
    """Explains a model from text to text; each program is compiled once for each length.

    Args:
      model: with a decoder and a vocabulary.
      lengths: that both texts are padded to; none for each pair's own.

    Raises:
      UserError: if the model has no vocabulary, or its run's settings are impossible.
    """

    def __init__(self, model: Pretrained, lengths: Sequence[int] = ()) -> None:
        assert model.decoder is not None
        if model.tokenizer is None:
            raise UserError('The model has no vocabulary.')
        self.model, self.lengths = model, tuple(sorted(lengths))
        self._writing = writing_of(model)
        self._tokenizer: AnyTokenizer = model.tokenizer
        self._seq2seq = Seq2SeqModel(model.config.plain, model.decoder)
        self._params = jax.tree.map(jnp.asarray, model.params)
        identity = model.config.plain, model.decoder, self._tokenizer.sha256
        self._run_attention = Programs(jax.jit(self._attention), 'attention', *identity)
        self._run_log_probs = Programs(jax.jit(self._log_probs), 'log_probs', *identity)
        self._compiled_lengths: set[int] = set()

    @property
    def num_compiled(self) -> int:
        """How many programs have been compiled."""
        return self._run_attention.num_compiled + self._run_log_probs.num_compiled

    # Of the cross-attention.
    programs_per_length = 1

    @property
    def is_compiled(self) -> bool:
        """Whether all is compiled that the longest texts need."""
        return bool(self.lengths) and self.lengths[-1] in self._compiled_lengths

    def compile(self, length: int) -> None:
        """Compiles what the cross-attention of texts of a length needs, and computes nothing."""
        ids = np.ones(length, np.int32)
        pair = EncodedPair(ids, ids, ('',) * length, ('',) * length, frozenset(), '')
        self._run_attention.compile(self._params, *self._padded([ids], pair))
        self._compiled_lengths.add(length)

    def encode(self, source: str, target: str | None = None) -> EncodedPair:
        """A source with a target, or with what the model writes for it.

        A source is cut to the length of its training, as where texts are written.

        Args:
          source: a text.
          target: a text; None for the model's own, written as in its training's evaluation.

        Raises:
          UserError: if a text has half a surrogate pair, or the target more pieces than the model
            has positions, or nothing is left of the source after normalisation.
        """
        for text in (source, target or ''):
            check_text(text, 'The text')
        tokenizer, positions = self._tokenizer, self.model.config.max_position_embeddings
        all_ids = tokenizer.encode([source])[0]
        if not all_ids:
            raise UserError('The text is empty; give some words to look at.')
        read_ids = all_ids[: self._writing.max_length - 2]
        source_ids = [tokenizer.cls_id, *read_ids, tokenizer.sep_id]
        if target is None:
            target_ids = self._written(source_ids)
        else:
            target_ids = [*tokenizer.encode([target])[0], tokenizer.sep_id]
            if len(target_ids) > positions:
                raise UserError(
                    f'The second text has {len(target_ids)} pieces; the model has {positions} '
                    f'positions: shorten it.'
                )
        pieces = tokenizer.pieces
        source_pieces, target_pieces = (
            tuple(str(pieces[index]) for index in ids) for ids in (source_ids, target_ids)
        )
        added = frozenset(token.content for token in getattr(tokenizer, 'added_tokens', ()))
        return EncodedPair(
            np.array(source_ids, np.int32),
            np.array(target_ids, np.int32),
            source_pieces,
            target_pieces,
            added & {*source_pieces, *target_pieces},
            target_text(target_ids, tokenizer) if target is None else target,
            len(all_ids) - len(read_ids),
        )

    def _written(self, source_ids: Sequence[int]) -> list[int]:
        """The pieces of the best text that the model writes, with its end if it has one."""
        writing = self._writing
        written = decoding.generate(
            self._seq2seq,
            self._params,
            np.array([source_ids], np.int32),
            np.ones((1, len(source_ids)), np.int32),
            writing.settings,
            writing.special,
            writing.max_new_tokens,
        )
        ids = pieces_before_end(np.asarray(written.token_ids)[0, 0], self._tokenizer)
        return [*ids, self._tokenizer.sep_id] if written.is_finished[0, 0] else ids

    def cross_attention(self, pair: EncodedPair) -> Float[np.ndarray, 'layers heads target source']:
        """Where each block of the decoder looked when it was to write each of the target's pieces.

        Raises:
          UserError: if a text is longer than the longest of `lengths`.
        """
        arrays = self._padded([pair.source_ids], pair)
        probs = np.asarray(self._run_attention(self._params, *arrays))
        return probs[:, 0, :, : len(pair.target_ids), : len(pair.source_ids)]

    def contributions(self, pair: EncodedPair) -> Contributions:
        """How much less likely each target word is without each of the source's words.

        Raises:
          UserError: if a text is longer than the longest of `lengths`.
        """
        source_words = word_places(pair.source_pieces[1:-1], pair.added_tokens)
        target_words = word_places(pair.target_pieces, pair.added_tokens)
        # Places in the source count its [CLS].
        sources = [pair.source_ids] + [
            np.delete(pair.source_ids, np.array(places) + 1) for _, places in source_words
        ]
        by_piece = np.concatenate(
            [
                np.asarray(self._run_log_probs(self._params, *self._padded(rows, pair)))[
                    : len(rows), : len(pair.target_ids)
                ]
                for rows in (
                    sources[first : first + _BATCH_SIZE]
                    for first in range(0, len(sources), _BATCH_SIZE)
                )
            ]
        ).astype(np.float64)
        by_word = np.zeros((len(sources), len(target_words)))
        for number, (_, places) in enumerate(target_words):
            by_word[:, number] = by_piece[:, places].sum(1)
        return Contributions(
            tuple(word for word, _ in source_words),
            tuple(word for word, _ in target_words),
            by_word[0],
            (by_word[0] - by_word[1:]).T,
        )

    def _padded(
        self, sources: Sequence[np.ndarray], pair: EncodedPair
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Some sources and the pair's target, at the next of the lengths."""
        longest = max(len(pair.source_ids), len(pair.target_ids))
        if self.lengths and longest > self.lengths[-1]:
            raise UserError(
                f'A text has {longest} pieces, of which {self.lengths[-1]} can be looked at; '
                f'shorten it.'
            )
        lengths = [x for x in self.lengths if x >= longest]
        compiled = [x for x in lengths if x in self._compiled_lengths]
        length = next(iter(compiled or lengths), 0)
        num_rows = 1 if len(sources) == 1 else _BATCH_SIZE
        # A row that only fills the batch has one token.
        ids = np.zeros((num_rows, length or len(pair.source_ids)), np.int32)
        mask = np.zeros_like(ids)
        mask[:, 0] = 1
        for place, source in enumerate(sources):
            ids[place, : len(source)], mask[place, : len(source)] = source, 1
        target_ids = np.zeros((num_rows, length or len(pair.target_ids)), np.int32)
        target_ids[:, : len(pair.target_ids)] = pair.target_ids
        target_mask = np.zeros_like(target_ids)
        target_mask[:, : len(pair.target_ids)] = 1
        return ids, mask, target_ids, target_mask

    def _attention(
        self,
        params: PyTree,
        source_ids: Int[Array, 'rows source'],
        source_mask: Int[Array, 'rows source'],
        target_ids: Int[Array, 'rows target'],
        target_mask: Int[Array, 'rows target'],
    ) -> Float[Array, 'layers rows heads target source']:
        inputs = self._inputs(target_ids)
        output = self._seq2seq(
            params, source_ids, source_mask, inputs, target_mask, return_attentions=True
        )
        assert output.cross_attention_probs is not None
        return output.cross_attention_probs

    def _log_probs(
        self,
        params: PyTree,
        source_ids: Int[Array, 'rows source'],
        source_mask: Int[Array, 'rows source'],
        target_ids: Int[Array, 'rows target'],
        target_mask: Int[Array, 'rows target'],
    ) -> Float[Array, 'rows target']:
        """log p of each of the target's pieces after those before it."""
        inputs = self._inputs(target_ids)
        logits = self._seq2seq(params, source_ids, source_mask, inputs, target_mask).logits
        logits = logits[..., : len(self._tokenizer.pieces)]
        of_piece = jnp.take_along_axis(logits, target_ids[..., None], -1)[..., 0]
        return of_piece - jax.nn.logsumexp(logits, -1)

    def _inputs(self, target_ids: Int[Array, 'rows target']) -> Int[Array, 'rows target']:
        """What the decoder has before each piece: [CLS] and the pieces before."""
        start = jnp.full_like(target_ids[:, :1], self._tokenizer.cls_id)
        return jnp.concatenate([start, target_ids[:, :-1]], 1)
