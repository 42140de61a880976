"""Pretraining batches of the tests' corpus, and what their rows were made of."""

import numpy as np

from albert_jax.data.pretraining import PretrainingData
from albert_jax.runs.pretraining import PretrainingSettings

LENGTH = 128


def make_data(corpus, batch_size=256, split='train', seed=0, **settings) -> PretrainingData:
    settings = PretrainingSettings(**({'sequence_length': LENGTH} | settings))
    return PretrainingData(corpus, split, settings, batch_size, seed)


def assert_same_batch(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def unmasked(batch):
    """The pieces before anything was hidden."""
    ids = batch['input_ids'].copy()
    rows, slots = np.nonzero(batch['masked_weights'])
    ids[rows, batch['masked_positions'][rows, slots]] = batch['masked_ids'][rows, slots]
    return ids


def segments(corpus, batch):
    """The two segments of each row as lists of ids."""
    for ids, mask, types in zip(
        unmasked(batch), batch['attention_mask'], batch['token_type_ids'], strict=True
    ):
        length = mask.sum()
        seps = np.flatnonzero(ids[:length] == corpus.tokenizer.sep_id)
        assert ids[0] == corpus.tokenizer.cls_id and seps[-1] == length - 1
        first = ids[1 : seps[0]].tolist()
        second = ids[seps[0] + 1 : seps[-1]].tolist() if len(seps) == 2 else []
        # Segment ids follow the position, whatever was swapped.
        assert types[: seps[0] + 1].sum() == 0
        assert (types[seps[0] + 1 : length] == 1).all() and types[length:].sum() == 0
        yield first, second


def chunks_of(corpus, split='train'):
    read = corpus.split(split)
    chunks = read.read(np.arange(len(read)))
    for i in range(len(read)):
        tokens = chunks.tokens[chunks.starts[i] : chunks.starts[i + 1]].tolist()
        yield tokens, chunks.edges[i, : chunks.num_sentences[i] + 1].tolist()
