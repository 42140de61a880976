"""The tokenizer files of a Hugging Face directory, and ours."""

import base64
import json
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from albert_jax.cli.errors import UserError, reason
from albert_jax.data import vocabulary_normalization
from albert_jax.data.hub_tokenizer import AnyTokenizer, HubTokenizer
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop.huggingface_config import parse

_SENTENCEPIECE, _TOKENIZERS, _WORDPIECE = 'spiece.model', 'tokenizer.json', 'vocab.txt'


def read(path: Path, vocabulary: Path | None = None) -> AnyTokenizer | None:
    """The tokenizer of a directory, or None where it has none.

    SentencePiece is preferred to its translation into `tokenizer.json`, which does not cut
    numbers from their commas.

    Args:
      path: the directory.
      vocabulary: a file to use in place of the directory's own.

    Raises:
      UserError: if a file is not what its format wants.
    """
    settings_file = path / 'tokenizer_config.json'
    settings: dict[str, Any] = {}
    if settings_file.is_file():
        settings = parse(_text(settings_file), str(settings_file))
        for name in ('do_lower_case', 'keep_accents', 'strip_accents', 'tokenize_chinese_chars'):
            if settings.get(name) is None:
                settings.pop(name, None)
            elif not isinstance(settings[name], bool):
                raise UserError(
                    f'{settings_file}: {name} is {settings[name]!r}; it must be true or false.'
                )
    if vocabulary is not None:
        return from_file(vocabulary, settings) if settings else from_vocabulary(vocabulary)
    if 'Japanese' in str(settings.get('tokenizer_class')):
        raise UserError(
            f'{path} wants the tokenizer {settings["tokenizer_class"]}, which cuts words with a '
            f'dictionary; give another vocabulary, or text that is cut already.'
        )
    tokenizer: AnyTokenizer | None = None
    for name in (_SENTENCEPIECE, _TOKENIZERS, _WORDPIECE):
        if tokenizer is None and (path / name).is_file():
            tokenizer = from_file(path / name, settings)
            if name == _SENTENCEPIECE and (path / _TOKENIZERS).is_file():
                tokenizer = _with_added_pieces(tokenizer, path / _TOKENIZERS)
    return tokenizer


def _with_added_pieces(tokenizer: AnyTokenizer, file: Path) -> AnyTokenizer:
    """The tokenizer.json in place of a SentencePiece model that it has more pieces than."""
    added = parse(_text(file), str(file)).get('added_tokens') or []
    if all(token.get('id', 0) < tokenizer.vocab_size for token in added):
        return tokenizer
    return from_file(file, {})


def from_vocabulary(file: Path) -> AnyTokenizer:
    """A tokenizer from its file alone, with what is stated beside it or shown by its pieces.

    Raises:
      UserError: as `from_file`, or if what lies beside it cannot be read.
    """
    settings_file = file.with_name('tokenizer_config.json')
    settings = parse(_text(settings_file), str(settings_file)) if settings_file.is_file() else {}
    tokenizer = from_file(file, settings)
    if not isinstance(tokenizer, Tokenizer):
        return tokenizer
    normalization = vocabulary_normalization.of_vocabulary(file, tokenizer)
    return Tokenizer(tokenizer.model, normalization, str(file))


def from_file(file: Path, settings: dict[str, Any]) -> AnyTokenizer:
    """A tokenizer from a SentencePiece model, a `tokenizer.json` or a WordPiece `vocab.txt`.

    Args:
      file: recognised by what it holds.
      settings: of the tokenizer_config.json beside it.

    Raises:
      UserError: if it is none of the three.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f'Vocabulary {file} cannot be read: {reason(error)}.') from error
    keep_case = not settings.get('do_lower_case', True)
    if content.lstrip()[:1] == b'{':
        return HubTokenizer(_normalised(_text(file), settings, str(file)), str(file))
    if b'\n[CLS]\n' in b'\n' + content.replace(b'\r\n', b'\n'):
        strip = settings.get('strip_accents')
        return HubTokenizer.from_wordpiece(
            _text(file),
            keep_case=keep_case,
            keep_accents=None if strip is None else not strip,
            splits_chinese=settings.get('tokenize_chinese_chars', True),
            origin=str(file),
        )
    normalization = Normalization(keep_case, settings.get('keep_accents', False))
    return Tokenizer(content, normalization, str(file))


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode('utf-8')
    except UnicodeDecodeError as error:
        raise UserError(f'{file} is not UTF-8 (byte {error.start}).') from error


def _normalised(definition: str, settings: dict[str, Any], origin: str) -> str:
    """The definition with what tokenizer_config.json says of BERT's normaliser, as transformers."""
    content = parse(definition, origin)
    normalizer = content.get('normalizer')
    if not isinstance(normalizer, dict) or normalizer.get('type') != 'BertNormalizer':
        return definition
    names = {
        'do_lower_case': 'lowercase',
        'strip_accents': 'strip_accents',
        'tokenize_chinese_chars': 'handle_chinese_chars',
    }
    changes = {ours: settings[theirs] for theirs, ours in names.items() if theirs in settings}
    if all(normalizer.get(name) == value for name, value in changes.items()):
        return definition
    content['normalizer'] = normalizer | changes
    return json.dumps(content, ensure_ascii=False)


def write(tokenizer: AnyTokenizer, max_length: int, directory: Path) -> None:
    """Writes what the matching tokenizer of transformers opens.

    Args:
      tokenizer: ours.
      max_length: positions of the model.
      directory: exists.
    """
    names = {name: tokenizer.pieces[getattr(tokenizer, f'{name}_id')]
             for name in ('pad', 'unk', 'cls', 'sep', 'mask')}  # fmt: skip
    settings: dict[str, Any] = {f'{name}_token': piece for name, piece in names.items()}
    settings['model_max_length'] = max_length
    if isinstance(tokenizer, Tokenizer):
        (directory / _SENTENCEPIECE).write_bytes(tokenizer.model)
        definition = json.dumps(_unigram(tokenizer), ensure_ascii=False)
        settings |= {
            'tokenizer_class': 'AlbertTokenizer',
            'do_lower_case': not tokenizer.normalization.keep_case,
            'keep_accents': tokenizer.normalization.keep_accents,
            'bos_token': names['cls'],
            'eos_token': names['sep'],
        }
    else:
        definition = tokenizer.definition
        content = json.loads(definition)
        normalizer = content.get('normalizer') or {}
        is_bert = normalizer.get('type') == 'BertNormalizer'
        if content['model']['type'] == 'WordPiece' and is_bert:
            (directory / _WORDPIECE).write_text(
                ''.join(f'{piece}\n' for piece in tokenizer.pieces), 'utf-8'
            )
            settings |= {
                'tokenizer_class': 'BertTokenizer',
                'do_lower_case': normalizer['lowercase'],
                'strip_accents': normalizer['strip_accents'],
                'tokenize_chinese_chars': normalizer['handle_chinese_chars'],
            }
        else:
            settings['tokenizer_class'] = 'PreTrainedTokenizerFast'
    (directory / _TOKENIZERS).write_text(definition, 'utf-8')
    (directory / 'tokenizer_config.json').write_text(json.dumps(settings, indent=2) + '\n')


def _unigram(tokenizer: Tokenizer) -> dict[str, Any]:
    """The definition in `tokenizers` that comes nearest to our ids.

    What transformers makes of a bare `spiece.model` cuts the text at the brackets, hyphens and
    full stops of ALBERT's vocabulary and puts a space after each.
    """
    proto: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    proto.ParseFromString(tokenizer.model)
    normalizers: list[dict[str, Any]] = [
        {'type': 'Replace', 'pattern': {'String': quotes}, 'content': '"'}
        for quotes in ('``', "''")
    ]
    if not tokenizer.normalization.keep_accents:
        normalizers += [{'type': 'NFKD'}, {'type': 'StripAccents'}]
    if not tokenizer.normalization.keep_case:
        normalizers.append({'type': 'Lowercase'})
    charsmap = proto.normalizer_spec.precompiled_charsmap
    if charsmap:
        encoded = base64.b64encode(charsmap).decode()
        normalizers.append({'type': 'Precompiled', 'precompiled_charsmap': encoded})
    space = {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always', 'split': True}
    special = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id,
               tokenizer.mask_id]  # fmt: skip
    cls, sep = tokenizer.pieces[tokenizer.cls_id], tokenizer.pieces[tokenizer.sep_id]

    return {
        'version': '1.0',
        'truncation': None,
        'padding': None,
        'added_tokens': [
            {
                'id': index,
                'content': tokenizer.pieces[index],
                'single_word': False,
                'lstrip': False,
                'rstrip': False,
                'normalized': False,
                'special': True,
            }
            for index in sorted(special)
        ],
        'normalizer': {'type': 'Sequence', 'normalizers': normalizers},
        'pre_tokenizer': {
            'type': 'Sequence',
            'pretokenizers': [{'type': 'WhitespaceSplit'}, space],
        },
        'post_processor': {
            'type': 'TemplateProcessing',
            'single': _template((cls, 0), ('A', 0), (sep, 0)),
            'pair': _template((cls, 0), ('A', 0), (sep, 0), ('B', 1), (sep, 1)),
            'special_tokens': {
                piece: {'id': piece, 'ids': [index], 'tokens': [piece]}
                for piece, index in ((cls, tokenizer.cls_id), (sep, tokenizer.sep_id))
            },
        },
        'decoder': space,
        'model': {
            'type': 'Unigram',
            'unk_id': tokenizer.unk_id,
            'vocab': [[piece.piece, piece.score] for piece in proto.pieces],
            'byte_fallback': False,
        },
    }


def _template(*parts: tuple[str, int]) -> list[dict[str, Any]]:
    """The post-processor's form of texts (A, B) and special tokens with their segments."""
    return [
        {'Sequence' if name in 'AB' else 'SpecialToken': {'id': name, 'type_id': segment}}
        for name, segment in parts
    ]
