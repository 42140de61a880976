"""The card of an exported model: what it is, how good it is, and a program that runs it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.data.predicate import INPUT_OF_ROLES, NO_ROLE, encode_predicate
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop.native import Pretrained
from albert_jax.interop.writing import writing_of

_TEXT = 'A text of a few words, to try the model with.'
_EXAMPLES = {
    'stablehlo': """\
from jax import export

call = export.deserialize(open('model.stablehlo', 'rb').read()).call
outputs = call(*inputs.values())  # in this order""",
    'savedmodel': """\
import tensorflow as tf

call = tf.saved_model.load('savedmodel').signatures['serving_default']
outputs = call(**{name: tf.constant(array) for name, array in inputs.items()})""",
    'onnx': """\
import onnxruntime

session = onnxruntime.InferenceSession('model.onnx')
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(names, inputs)))""",
}
_TOKENIZATION = {
    'tokenizer.json': 'The pieces of a text, by the package tokenizers: '
    "`Tokenizer.from_file('tokenizer.json')`, then its `no_padding()` and `no_truncation()`, or it "
    'may fill texts up and cut them; normalising is part of it.',
    'vocabulary.model': 'The pieces of a text, by the package sentencepiece: '
    "`SentencePieceProcessor(model_file='vocabulary.model')`, for text normalised as "
    '`signature.json` says. Its `added_tokens` are cut out first, and stand for themselves.',
}

# Heads with a logit for each label of a text.
_CLASSIFIERS = ('sequence_classification', 'multi_label_classification')
_ACTIVATIONS = {
    'softmax': 'probabilities = np.exp(logits - np.logaddexp.reduce(logits))',
    'sigmoid': 'probabilities = 1 / (1 + np.exp(-logits))',
}
_PROBABILITIES = {
    'softmax': 'softmax of the logits',
    'sigmoid': 'sigmoid of each logit: every label is a yes or no of its own, yes above 0.5',
}


def _example(model: Pretrained, form: str, signature: dict[str, Any]) -> list[str]:
    """A program that asks the model for one text, whose pieces are written out."""
    ids = list(range(1, 1 + signature['min_length']))
    lines = ['import numpy as np', '']
    if model.tokenizer is not None:
        tokenizer = model.tokenizer
        pieces = tokenizer.encode([_TEXT])[0][: signature['max_length'] - 2]
        ids = [tokenizer.cls_id, *pieces, tokenizer.sep_id]
        lines.append(f"# '{_TEXT}' as pieces, with [CLS] and [SEP]")
    # Of one segment; where there can be an answer, it can be anywhere.
    values = {'input_ids': 'ids', 'token_type_ids': 'np.zeros_like(ids)'}
    if model.tokenizer is not None and NO_ROLE in signature['labels']:
        ids, types = encode_predicate(model.tokenizer, _TEXT.split(), _TEXT.split().index('try'))
        values['token_type_ids'] = f'np.array([{types}], np.int32)'
        lines[-1] += ', and its predicate, try'
    lines += [f'ids = np.array([{ids}], np.int32)', 'inputs = {']
    for name in signature['inputs']:
        lines.append(f"    '{name}': {values.get(name, 'np.ones_like(ids)')},")
    lines.append('}')
    if '4' in signature['inputs']['input_ids']['shape']:
        lines += [
            '# Four options, here the same',
            'inputs = {name: np.repeat(array[:, None], 4, 1) for name, array in inputs.items()}',
        ]
    answer = _answer(signature) if model.decoder is None else _text(model)
    return [*lines, *_EXAMPLES[form].splitlines(), *answer]


def _answer(signature: dict[str, Any]) -> list[str]:
    """Lines that print what the model says: probabilities by label where it has labels."""
    if not signature['labels'] or signature['head'] not in _CLASSIFIERS:
        return ['print({name: np.asarray(array) for name, array in outputs.items()})']
    return [
        "logits = np.asarray(outputs['logits'])[0]",
        _ACTIVATIONS[signature['activation']],
        f'labels = {signature["labels"]}',
        'print({label: round(float(p), 3) for label, p in zip(labels, probabilities)})',
    ]


def _text(model: Pretrained) -> list[str]:
    """Lines that print the text that a model with a decoder writes."""
    assert model.tokenizer is not None
    lines = [
        "token_ids = np.asarray(outputs['token_ids'])[0, 0]  # of the best text",
        f'ends = np.isin(token_ids, [{model.tokenizer.sep_id}, {model.tokenizer.pad_id}])',
        'written = token_ids[: ends.argmax() if ends.any() else None].tolist()',
    ]
    if not isinstance(model.tokenizer, Tokenizer):
        return [
            *lines,
            'import tokenizers',
            "print(tokenizers.Tokenizer.from_file('tokenizer.json').decode(written))",
        ]
    if model.tokenizer.added_tokens:
        return [*lines, 'print(written)']
    return [
        *lines,
        'import sentencepiece',
        "processor = sentencepiece.SentencePieceProcessor(model_file='vocabulary.model')",
        'print(processor.decode(written))',
    ]


def _way_to_write(model: Pretrained) -> str:
    """How a model with a decoder writes, in a few words."""
    writing = writing_of(model)
    settings = writing.settings
    way = 'greedy'
    if settings.temperature:
        way = (
            f'samples at temperature {settings.temperature} with a fixed seed: the same input has '
            f'the same text'
        )
    elif settings.num_beams > 1:
        way = f'beam search with {settings.num_beams} beams, penalty {settings.length_penalty}'
    count = settings.num_return_sequences
    return f'at most {writing.max_new_tokens} pieces, {way}; {count} for each source'


_UNCHECKED = {'onnx': 'ONNX Runtime does not check it: longer ones give not-a-number.'}


def render(
    model: Pretrained,
    origin: str,
    form: str,
    signature: dict[str, Any],
    vocabulary: Sequence[str],
) -> str:
    """The card, in Markdown.

    Args:
      model: that is exported.
      origin: its checkpoint, beside whose weights the results of its evaluation may lie.
      form: stablehlo, savedmodel or onnx.
      signature: the content of signature.json.
      vocabulary: the names of the vocabulary's files.

    Raises:
      UserError: if the results of the evaluation cannot be read.
    """
    config = model.config
    kind = model.head.kind.replace('_', ' ') if model.head else 'pretraining heads'
    if model.decoder is not None:
        kind = 'none: a decoder, from text to text'
    rows = [
        ('made from', f'`{Path(origin).name}`, step {model.step}'),
        ('head', kind),
        ('layers × width', f'{config.num_hidden_layers} × {config.hidden_size}, sharing '
                           f'{config.sharing}'),
        ('vocabulary', f'{config.vocab_size} pieces'),
        ('longest text', f'{signature["max_length"]} pieces'),
    ]  # fmt: skip
    if model.decoder is not None:
        rows.append(('writes', _way_to_write(model)))
    if signature['activation']:
        rows.append(('probabilities', _PROBABILITIES[signature['activation']]))
    if NO_ROLE in signature['labels']:
        rows.append(('input', INPUT_OF_ROLES))
    if signature['labels']:
        rows.append(('labels', ', '.join(signature['labels'])))
    # A BERT is an ALBERT that shares and factorises nothing.
    is_bert = config.sharing == 'none' and not config.use_embedding_projection
    title = '# A BERT model' if is_bert else '# An ALBERT model'
    lines = [title, '', '| | |', '|---|---|']
    lines += [f'| {name} | {value} |' for name, value in rows]
    lines += ['', '## Evaluation', '', *_evaluation(origin)]
    lines += [
        '',
        '## Example',
        '',
        'To be run in this folder:',
        '',
        '```python',
        *_example(model, form, signature),
        '```',
        '',
    ]
    lines += [_TOKENIZATION[file] + '\n' for file in vocabulary]
    shortest, longest = signature['min_length'], signature['max_length']
    lines.append(
        f'Texts of {shortest} to {longest} pieces, with [CLS] and [SEP]; pad shorter ones. '
        f'{_UNCHECKED.get(form, "Other lengths are refused.")} Outputs are float32, positions '
        f'and pieces int32. `signature.json` has shapes, labels and special pieces.'
    )
    return '\n'.join(lines) + '\n'


def read_results(origin: Path) -> dict[str, Any] | None:
    """What the evaluation of a fine-tuning reached; None where its folder has no such file.

    Raises:
      UserError: if the file is damaged.
    """
    path = origin / 'results.json'
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f'{path} is damaged ({error}); evaluate the model again.') from error


def _evaluation(origin: str) -> list[str]:
    results = read_results(Path(origin))
    if results is None:
        return ['Not known: there is no results.json beside the checkpoint.']
    lines = ['On the validation file of its fine-tuning:', '', '| metric | value |', '|---|---|']
    for name, value in results.items():
        if name != 'step' and isinstance(value, int | float):
            lines.append(f'| {name} | {value:.4f} |')
    return lines
