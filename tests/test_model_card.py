"""The card of an exported model; tests/test_export.py runs its example for every head."""

import numpy as np
import pytest

from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import model_card
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import Head
from tests import tiny

BERT = {'sharing': 'none', 'use_embedding_projection': False, 'embedding_size': 16}


def card(vocabulary, head, **fields) -> str:
    model = Pretrained(tiny.config(**fields), {}, Tokenizer(vocabulary), head)
    names = ('input_ids', 'attention_mask', 'token_type_ids')
    signature = {
        'inputs': {name: {'type': 'int32', 'shape': ['batch', 'length']} for name in names},
        'head': head and head.kind, 'labels': list(head.labels) if head else [],
        'activation': head and head.activation, 'max_length': 64, 'min_length': 8,
    }  # fmt: skip
    return model_card.render(model, 'runs/x', 'stablehlo', signature, ['vocabulary.model'])


def test_a_bert_is_called_one(vocabulary):
    assert card(vocabulary, None, **BERT).startswith('# A BERT model\n')
    assert card(vocabulary, None).startswith('# An ALBERT model\n')
    # Not every ALBERT shares.
    assert card(vocabulary, None, sharing='none').startswith('# An ALBERT model\n')


@pytest.mark.parametrize(
    ('kind', 'wanted'),
    [
        ('sequence_classification', "{'no': 0.119, 'yes': 0.881}"),
        ('multi_label_classification', "{'no': 0.269, 'yes': 0.731}"),
    ],
)
def test_the_example_prints_probabilities_by_label(kind, wanted, vocabulary, capsys):
    text = card(vocabulary, Head(kind, ('no', 'yes')))
    assert 'To be run in this folder:' in text and 'by name' not in text
    program = text.split('```python')[1].split('```')[0]
    before, after = program.split('from jax import export')
    known = {'call': lambda *_: {'logits': np.array([[-1.0, 1.0]], np.float32)}}
    # Without the file of a model.
    exec(before + after.partition('.call\n')[2], known)
    assert capsys.readouterr().out.strip() == wanted
