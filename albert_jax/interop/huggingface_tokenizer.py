"""The tokenizer files of a Hugging Face directory, and ours."""

import base64
import json
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2

from albert_jax.data.hub_tokenizer import AnyTokenizer, HubTokenizer
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.errors import UserError
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
        settings = parse(settings_file.read_text('utf-8', 'replace'), str(settings_file))
    if vocabulary is not None:
        return from_file(vocabulary, settings)
    for name in (_SENTENCEPIECE, _TOKENIZERS, _WORDPIECE):
        if (path / name).is_file():
            return from_file(path / name, settings)
    return None


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
        raise UserError(f'Vocabulary {file} cannot be read: {error.strerror}.') from error
    keep_case = not settings.get('do_lower_case', True)
    if content.lstrip()[:1] == b'{':
        return HubTokenizer(content.decode('utf-8', 'replace'), str(file))
    if b'\n[CLS]\n' in content.replace(b'\r\n', b'\n'):
        strip = settings.get('strip_accents')
        return HubTokenizer.from_wordpiece(
            content.decode('utf-8', 'replace'),
            keep_case=keep_case,
            keep_accents=None if strip is None else not strip,
            splits_chinese=settings.get('tokenize_chinese_chars', True),
            origin=str(file),
        )
    normalization = Normalization(keep_case, settings.get('keep_accents', False))
    return Tokenizer(content, normalization, str(file))


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
        if content['model']['type'] == 'WordPiece':
            normalizer = content['normalizer'] or {}
            (directory / _WORDPIECE).write_text(
                ''.join(f'{piece}\n' for piece in tokenizer.pieces), 'utf-8'
            )
            settings |= {
                'tokenizer_class': 'BertTokenizer',
                'do_lower_case': normalizer.get('lowercase', True),
                'strip_accents': normalizer.get('strip_accents'),
                'tokenize_chinese_chars': normalizer.get('handle_chinese_chars', True),
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

    def template(*parts: tuple[str, int]) -> list[dict[str, Any]]:
        return [
            {'Sequence' if name in 'AB' else 'SpecialToken': {'id': name, 'type_id': segment}}
            for name, segment in parts
        ]

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
            'single': template((cls, 0), ('A', 0), (sep, 0)),
            'pair': template((cls, 0), ('A', 0), (sep, 0), ('B', 1), (sep, 1)),
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
