"""The one or two segments of each row: cut out of chunks, swapped or replaced, laid side by side.

Section 3.1 of the paper; details in docs/REFERENCE.md, 2.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64, UInt

from albert_jax.data.batch import HostBatch
from albert_jax.data.dataset import Chunks
from albert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Segments:
    """Where the one or two segments of each row are in the tokens, and what they are."""

    tokens: UInt[np.ndarray, 'tokens']
    first: Int[np.ndarray, 'batch']
    first_length: Int[np.ndarray, 'batch']
    second: Int[np.ndarray, 'batch']
    # Zero where there is no second segment.
    second_length: Int[np.ndarray, 'batch']
    # True: swapped (SOP) or of another document (NSP).
    label: Bool[np.ndarray, 'batch']


def split_chunks(
    chunks: Chunks,
    target: Int64[np.ndarray, 'batch'],
    u_start: Float64[np.ndarray, 'batch'],
    u_cut: Float64[np.ndarray, 'batch'],
    u_label: Float64[np.ndarray, 'batch'],
) -> Segments:
    """Two adjacent runs of sentences of each chunk; half of them labelled, and not changed yet.

    Args:
      chunks: one for each row.
      target: tokens of both segments together.
      u_start: uniform numbers that choose the first sentence.
      u_cut: those that choose where the second segment begins.
      u_label: those that choose the labels.
    """
    edges, num_sentences = chunks.edges, chunks.num_sentences
    row = np.arange(len(edges))
    column = np.arange(edges.shape[1])
    # A run of whole sentences that fills the target, starting anywhere it can be filled.
    total = edges[:, -1]
    num_starts = (total[:, None] - edges >= target[:, None]).sum(1)
    start = (u_start * np.maximum(num_starts, 1)).astype(np.int64)
    start = np.minimum(start, np.maximum(num_sentences - 2, 0))
    begin = edges[row, start]
    is_inside = (edges <= (begin + target)[:, None]) & (column <= num_sentences[:, None])
    # Two sentences even where only one fits: they are then cut at their outer ends.
    end = np.maximum(is_inside.sum(1) - 1, np.minimum(start + 2, num_sentences))
    has_two = end - start >= 2
    cut = np.where(has_two, start + 1 + (u_cut * (end - start - 1)).astype(np.int64), end)
    boundary = edges[row, cut]
    second_length = edges[row, end] - boundary
    first_length = boundary - begin
    kept = np.maximum(target - second_length, target // 2)
    first_length = np.minimum(first_length, np.where(has_two, kept, target))
    first = np.where(has_two, boundary - first_length, begin)
    second_length = np.minimum(second_length, target - first_length)
    return Segments(
        chunks.tokens,
        chunks.starts[:-1] + first,
        first_length,
        chunks.starts[:-1] + boundary,
        second_length,
        # A chunk that cannot make two segments is never labelled (Google's leak, albert#234).
        has_two & (u_label < 0.5),
    )


def swap_labelled(segments: Segments) -> Segments:
    """The segments with the order of the labelled pairs swapped (sentence-order prediction)."""
    label = segments.label
    return dataclasses.replace(
        segments,
        first=np.where(label, segments.second, segments.first),
        first_length=np.where(label, segments.second_length, segments.first_length),
        second=np.where(label, segments.first, segments.second),
        second_length=np.where(label, segments.first_length, segments.second_length),
    )


def replace_labelled(
    segments: Segments,
    target: Int64[np.ndarray, 'batch'],
    negative_chunks: Chunks,
    u_sentence: Float64[np.ndarray, 'batch'],
) -> Segments:
    """The segments with the second one of labelled pairs replaced (next-sentence prediction).

    Args:
      segments: as `split_chunks` made them.
      target: tokens of both segments together.
      negative_chunks: one for each row, of another document where the row is labelled.
      u_sentence: uniform numbers that choose the sentence to start with.
    """
    row = np.arange(len(target))
    sentence = (u_sentence * negative_chunks.num_sentences).astype(np.int64)
    offset = negative_chunks.edges[row, sentence]
    length = np.minimum(negative_chunks.edges[:, -1] - offset, target - segments.first_length)
    offset = offset + negative_chunks.starts[:-1] + len(segments.tokens)
    return dataclasses.replace(
        segments,
        tokens=np.concatenate([segments.tokens, negative_chunks.tokens]),
        second=np.where(segments.label, offset, segments.second),
        second_length=np.where(segments.label, length, segments.second_length),
    )


def assemble(
    segments: Segments, sequence_length: int, tokenizer: Tokenizer, *, has_sentence_loss: bool
) -> HostBatch:
    """[CLS] first [SEP] second [SEP], padded; or [CLS] first [SEP].

    Args:
      segments: of each row.
      sequence_length: of the rows.
      tokenizer: of the tokens.
      has_sentence_loss: whether labels count.

    Returns:
      All fields of a batch but the predictions.
    """
    first_length, second_length = segments.first_length, segments.second_length
    row = np.arange(len(first_length))
    column = np.arange(sequence_length, dtype=np.int32)
    first_sep = (first_length + 1).astype(np.int32)
    has_second = second_length > 0
    last_sep = np.where(has_second, first_sep + 1 + second_length, first_sep).astype(np.int32)
    is_second = column > first_sep[:, None]
    # Both segments are read by adding the column to a number of the row.
    in_first = (segments.first - 1).astype(np.int32)
    in_second = (segments.second - first_sep - 1).astype(np.int32)
    source = np.where(is_second, in_second[:, None], in_first[:, None]) + column
    source = np.clip(source, 0, len(segments.tokens) - 1)
    input_ids = segments.tokens[source].astype(np.int32)
    is_present = column <= last_sep[:, None]
    input_ids *= is_present
    if tokenizer.pad_id:
        input_ids[~is_present] = tokenizer.pad_id
    input_ids[:, 0] = tokenizer.cls_id
    input_ids[row, first_sep] = tokenizer.sep_id
    input_ids[row, last_sep] = tokenizer.sep_id
    return {
        'input_ids': input_ids,
        'attention_mask': is_present.astype(np.int32),
        'token_type_ids': (is_second & is_present).astype(np.int32),
        'sentence_labels': segments.label.astype(np.int32),
        'sentence_weights': (has_second & has_sentence_loss).astype(np.float32),
    }
