"""The tokenizer files of a Hugging Face directory, and ours."""

import base64
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sentencepiece import sentencepiece_model_pb2

from albert_jax.cli.errors import UserError, reason
from albert_jax.cli.json_text import check_text, parse_object
from albert_jax.data import vocabulary_normalization
from albert_jax.data.added_tokens import AddedToken, add_pieces
from albert_jax.data.hub_tokenizer import AnyTokenizer, HubTokenizer
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import huggingface_added_tokens as added_tokens
from albert_jax.interop.huggingface_added_tokens import Found

_SENTENCEPIECE, _TOKENIZERS, _WORDPIECE = 'spiece.model', 'tokenizer.json', 'vocab.txt'
# In the order in which one of them is chosen.
_FILES = (_SENTENCEPIECE, _TOKENIZERS, _WORDPIECE)
_SPECIAL = ('pad', 'unk', 'cls', 'sep', 'mask')


class Vocabulary(NamedTuple):
    """What a directory has of a tokenizer."""

    # None where it has none.
    tokenizer: AnyTokenizer | None
    # What a person should know of how it was read, a sentence each.
    notes: tuple[str, ...] = ()


def read(path: Path, vocabulary: Path | None, num_rows: int) -> Vocabulary:
    """The tokenizer of a directory, with its added tokens.

    SentencePiece is preferred to its translation into `tokenizer.json`, which does not cut
    numbers from their commas.

    Args:
      path: the directory.
      vocabulary: a file to use in place of the directory's own.
      num_rows: word embeddings of the model.

    Raises:
      UserError: if a file is not what its format wants.
    """
    settings = _settings(path / 'tokenizer_config.json')
    added = added_tokens.read(path, settings)
    if vocabulary is not None:
        tokenizer = from_file(vocabulary, settings) if settings else from_vocabulary(vocabulary)
        return Vocabulary(tokenizer, lost_tokens([one.token for one in added], tokenizer))
    if 'Japanese' in str(settings.get('tokenizer_class')):
        raise UserError(
            f'{path} wants the tokenizer {settings["tokenizer_class"]}, which cuts words with a '
            f'dictionary; give another vocabulary, or text that is cut already.'
        )
    file = next((path / name for name in _FILES if (path / name).is_file()), None)
    if file is None:
        return Vocabulary(None)
    tokenizer = from_file(file, settings)
    # A tokenizer to which tokens were added, but not the model: all other texts are read well.
    beyond = [
        one.token.content
        for one in added
        if one.token.id >= num_rows and one.token.content not in tokenizer.pieces
    ]
    added = [one for one in added if one.token.content not in beyond]
    tokenizer = _with_added(tokenizer, added, file)
    notes: list[str] = []
    if beyond:
        notes.append(f'it has no embeddings for its added tokens, which are text: {beyond}.')
    extra = added_tokens.extra_special(path, settings)
    if '' in extra:
        notes.append('an additional special token is empty and was left out, as by transformers.')
    new = [content for content in extra if content and content not in (*tokenizer.pieces, *beyond)]
    if new and tokenizer.vocab_size + len(new) <= num_rows:
        for content in new:
            check_text(content, f'{path}: an additional special token')
        # They have the next ids, as in transformers.
        ids = range(tokenizer.vocab_size, num_rows)
        specials = [
            Found(AddedToken(content, index, normalized=False, special=True), str(path))
            for content, index in zip(new, ids, strict=False)
        ]
        return Vocabulary(_with_added(tokenizer, [*added, *specials], file), tuple(notes))
    if new:
        notes.append(
            f'it has no embeddings for its additional special tokens, which are text: {new}.'
        )
    return Vocabulary(tokenizer, tuple(notes))


def lost_tokens(added: Sequence[AddedToken], tokenizer: AnyTokenizer) -> tuple[str, ...]:
    """A note on the added tokens of a model that another vocabulary does not have; none if none.

    Args:
      added: tokens of the model.
      tokenizer: that is used in place of its own.
    """
    lost = [token.content for token in added if token.content not in tokenizer.pieces]
    if not lost:
        return ()
    return (f'the added tokens {", ".join(lost)} are not in the vocabulary given, and are text.',)


def _settings(file: Path) -> dict[str, Any]:
    """The content of tokenizer_config.json; what is null there is left out."""
    if not file.is_file():
        return {}
    settings = parse_object(_text(file), str(file))
    for name in ('do_lower_case', 'keep_accents', 'strip_accents', 'tokenize_chinese_chars'):
        if settings.get(name) is None:
            settings.pop(name, None)
        elif not isinstance(settings[name], bool):
            raise UserError(f'{file}: {name} is {settings[name]!r}; it must be true or false.')
    return settings


def _with_added(tokenizer: AnyTokenizer, added: Sequence[Found], file: Path) -> AnyTokenizer:
    """The tokenizer with the added tokens of its directory.

    Of a SentencePiece model's, ALBERT's special pieces are text, as in Google's code, and symbols
    that the model itself never cuts are left to it.
    """
    if isinstance(tokenizer, HubTokenizer):
        return added_tokens.with_added(tokenizer, added, str(file))
    special_ids = {getattr(tokenizer, f'{name}_id') for name in _SPECIAL}
    left = {tokenizer.pieces[index] for index in special_ids}
    left |= {
        piece.piece
        for piece in _proto(tokenizer).pieces
        if piece.type == piece.USER_DEFINED and tokenizer.normalization(piece.piece) == piece.piece
    }
    kept = [
        one
        for one in added
        if one.token.content not in left and not (one.token.special and one.token.id in special_ids)
    ]
    if not kept:
        return tokenizer
    tokens = [one.token for one in kept]
    pieces = tokenizer.pieces[: tokenizer.num_model_pieces]
    # Once here, where it is known which file each is from.
    add_pieces(pieces, tokens, [one.origin for one in kept])
    return Tokenizer(tokenizer.model, tokenizer.normalization, str(file), tokens)


def from_vocabulary(file: Path) -> AnyTokenizer:
    """A tokenizer from its file alone, with what is stated beside it or shown by its pieces.

    Raises:
      UserError: as `from_file`, or if what lies beside it cannot be read.
    """
    tokenizer = from_file(file, _settings(file.with_name('tokenizer_config.json')))
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
        tokenizer = HubTokenizer(_normalised(_text(file), settings, str(file)), str(file))
        return added_tokens.with_added(tokenizer, (), str(file))
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
    content = parse_object(definition, origin)
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
    names = {name: tokenizer.pieces[getattr(tokenizer, f'{name}_id')] for name in _SPECIAL}
    settings: dict[str, Any] = {f'{name}_token': piece for name, piece in names.items()}
    settings['model_max_length'] = max_length
    if isinstance(tokenizer, Tokenizer):
        (directory / _SENTENCEPIECE).write_bytes(tokenizer.model)
        content = _unigram(tokenizer)
        definition = json.dumps(content, ensure_ascii=False)
        num_model_pieces = tokenizer.num_model_pieces
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
        num_model_pieces = tokenizer.num_model_pieces
        if content['model']['type'] == 'WordPiece' and is_bert:
            pieces = tokenizer.pieces[:num_model_pieces]
            (directory / _WORDPIECE).write_text(''.join(f'{piece}\n' for piece in pieces), 'utf-8')
            settings |= {
                'tokenizer_class': 'BertTokenizer',
                'do_lower_case': normalizer['lowercase'],
                'strip_accents': normalizer['strip_accents'],
                'tokenize_chinese_chars': normalizer['handle_chinese_chars'],
            }
        else:
            settings['tokenizer_class'] = 'PreTrainedTokenizerFast'
    (directory / _TOKENIZERS).write_text(definition, 'utf-8')
    tokens = added_tokens.from_definition(content, _TOKENIZERS)
    more, legacy = added_tokens.files(tokens, num_model_pieces)
    if legacy:
        (directory / added_tokens.FILE).write_text(legacy, 'utf-8')
    settings |= more
    (directory / 'tokenizer_config.json').write_text(json.dumps(settings, indent=2) + '\n')


def _proto(tokenizer: Tokenizer) -> Any:
    """The SentencePiece model as a protocol buffer."""
    proto: Any = sentencepiece_model_pb2.ModelProto()  # pyright: ignore[reportAttributeAccessIssue]
    proto.ParseFromString(tokenizer.model)
    return proto


def _unigram(tokenizer: Tokenizer) -> dict[str, Any]:
    """The definition in `tokenizers` that comes nearest to our ids.

    What transformers makes of a bare `spiece.model` cuts the text at the brackets, hyphens and
    full stops of ALBERT's vocabulary and puts a space after each.
    """
    proto = _proto(tokenizer)
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
    special = sorted(getattr(tokenizer, f'{name}_id') for name in _SPECIAL)
    added = [
        *(AddedToken(tokenizer.pieces[i], i, normalized=False, special=True) for i in special),
        *tokenizer.added_tokens,
    ]
    cls, sep = tokenizer.pieces[tokenizer.cls_id], tokenizer.pieces[tokenizer.sep_id]

    return {
        'version': '1.0',
        'truncation': None,
        'padding': None,
        'added_tokens': [dataclasses.asdict(token) for token in added],
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
