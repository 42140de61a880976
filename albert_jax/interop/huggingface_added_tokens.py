"""The added tokens of a Hugging Face directory: three files may say what they are."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, parse_object
from albert_jax.data.added_tokens import AddedToken, add_pieces
from albert_jax.data.hub_tokenizer import HubTokenizer

FILE = 'added_tokens.json'
DECODER = 'added_tokens_decoder'
_FLAGS = ('lstrip', 'rstrip', 'single_word', 'normalized', 'special')
# Older and newer transformers' key for special tokens beyond [CLS] and the others.
_EXTRA_KEYS = ('additional_special_tokens', 'extra_special_tokens')


class Found(NamedTuple):
    """An added token, and what to call its source in messages."""

    token: AddedToken
    origin: str


def read(path: Path, settings: Mapping[str, Any]) -> list[Found]:
    """The added tokens of a directory, in the order of their ids.

    Where files say different things of one token, `tokenizer_config.json` is believed, then
    `tokenizer.json`, then `added_tokens.json`, as in transformers; but its id must be the same.

    Args:
      path: the directory.
      settings: the content of its tokenizer_config.json.

    Raises:
      UserError: if a file is not what its format wants, or two files give a token different ids.
    """
    special = set(_special_contents(settings))
    sources: list[tuple[str, Iterable[AddedToken]]] = [
        (f'{path / "tokenizer_config.json"}: {DECODER}', _decoder(path, settings))
    ]
    file = path / 'tokenizer.json'
    if file.is_file():
        sources.append((str(file), from_definition(_content(file), str(file))))
    file = path / 'special_tokens_map.json'
    if file.is_file():
        special |= set(_special_contents(_content(file)))
    file = path / FILE
    if file.is_file():
        sources.append((str(file), _legacy(file, special)))
    found: dict[str, Found] = {}
    for origin, tokens in sources:
        for token in tokens:
            known = found.setdefault(token.content, Found(token, origin))
            if known.token.id != token.id:
                raise UserError(
                    f'{origin} gives the token {token.content!r} the id {token.id}, '
                    f'{known.origin} {known.token.id}; make them agree.'
                )
    return sorted(found.values(), key=_id_of)


def extra_special(path: Path, settings: Mapping[str, Any]) -> list[str]:
    """What the directory calls additional special tokens, whatever their ids."""
    file = path / 'special_tokens_map.json'
    contents = [settings, _content(file)] if file.is_file() else [settings]
    found = [
        token
        for content in contents
        for key in _EXTRA_KEYS
        for token in _contents_of(content.get(key))
    ]
    return list(dict.fromkeys(found))


def from_definition(content: Mapping[str, Any], origin: str) -> list[AddedToken]:
    """The added tokens of a `tokenizer.json`.

    Raises:
      UserError: if they are not a list of tokens with ids.
    """
    entries = content.get('added_tokens') or []
    if not isinstance(entries, list):
        raise UserError(f'{origin}: added_tokens must be a list.')
    return [
        _token(entry.get('id') if isinstance(entry, dict) else None, entry, origin)
        for entry in entries
    ]


def with_added(tokenizer: HubTokenizer, found: Sequence[Found], origin: str) -> HubTokenizer:
    """The tokenizer with more added tokens, or with what files say of those that it has.

    Args:
      tokenizer: from a `tokenizer.json` or a `vocab.txt`.
      found: all of its directory; none for its own alone.
      origin: what to call it in messages.

    Raises:
      UserError: if a token would get another id than it is given.
    """
    content = json.loads(tokenizer.definition)
    own = {token.content: Found(token, origin) for token in from_definition(content, origin)}
    merged = sorted((own | {one.token.content: one for one in found}).values(), key=_id_of)
    tokens = [one.token for one in merged]
    pieces = tokenizer.pieces[: tokenizer.num_model_pieces]
    add_pieces(pieces, tokens, [one.origin for one in merged])
    if tokens != sorted((one.token for one in own.values()), key=lambda token: token.id):
        content['added_tokens'] = [dataclasses.asdict(token) for token in tokens]
        tokenizer = HubTokenizer(json.dumps(content, ensure_ascii=False), origin)
    if tokenizer.pieces != pieces:
        wrong = next(t for t in tokens if tokenizer.pieces.index(t.content) != t.id)
        raise UserError(
            f'{origin}: the added token {wrong.content!r} has the id {wrong.id}, but would become '
            f'piece {tokenizer.pieces.index(wrong.content)}, since ids below it have no piece.'
        )
    return tokenizer


def _id_of(found: Found) -> int:
    return found.token.id


def files(tokens: Iterable[AddedToken], num_model_pieces: int) -> tuple[dict[str, Any], str | None]:
    """What `tokenizer_config.json` gets of added tokens, and the content of `added_tokens.json`.

    Both are empty for a vocabulary to which nothing was added.

    Args:
      tokens: all of the tokenizer, special ones included.
      num_model_pieces: of its vocabulary; tokens with higher ids were added.
    """
    tokens = sorted(tokens, key=lambda token: token.id)
    added = {token.content: token.id for token in tokens if token.id >= num_model_pieces}
    if not added:
        return {}, None
    entries = {str(token.id): dataclasses.asdict(token) for token in tokens}
    for entry in entries.values():
        del entry['id']
    return {DECODER: entries}, json.dumps(added, ensure_ascii=False, indent=2) + '\n'


def _content(file: Path) -> dict[str, Any]:
    try:
        return parse_object(file.read_bytes().decode('utf-8'), str(file))
    except UnicodeDecodeError as error:
        raise UserError(f'{file} is not UTF-8 (byte {error.start}).') from error


def _decoder(path: Path, settings: Mapping[str, Any]) -> Iterator[AddedToken]:
    origin = f'{path / "tokenizer_config.json"}: {DECODER}'
    entries = settings.get(DECODER) or {}
    if not isinstance(entries, dict):
        raise UserError(f'{origin} must be an object with a token for each id.')
    for key, entry in entries.items():
        yield _token(int(key) if key.isdecimal() else key, entry, origin)


def _legacy(file: Path, special: set[str]) -> Iterator[AddedToken]:
    """Of a file that has contents and ids only; special tokens are not normalised."""
    for content, index in _content(file).items():
        is_special = content in special
        flags = {'special': is_special, 'normalized': not is_special}
        yield _token(index, {'content': content, **flags}, str(file))


def _token(index: Any, entry: Any, origin: str) -> AddedToken:
    if not isinstance(entry, dict) or not isinstance(entry.get('content'), str):
        raise UserError(f'{origin}: {entry!r} is no added token; it must have a text as content.')
    content = check_text(entry['content'], origin)
    if not content:
        raise UserError(f'{origin}: the added token with the id {index!r} is empty; remove it.')
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise UserError(
            f'{origin}: the added token {content!r} has the id {index!r}; it must be a number from '
            f'0 on.'
        )
    flags = {name: entry[name] for name in _FLAGS if entry.get(name) is not None}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(
                f'{origin}: {name} of the added token {content!r} is {value!r}; it must be true or '
                f'false.'
            )
    # A special token is looked for in the text as it is given, unless its file says otherwise.
    flags.setdefault('normalized', not flags.get('special', False))
    return AddedToken(content, index, **flags)


def _special_contents(content: Mapping[str, Any]) -> Iterator[str]:
    for key, value in content.items():
        if key.endswith('_token') or key in _EXTRA_KEYS:
            yield from _contents_of(value)


def _contents_of(value: Any) -> Iterator[str]:
    """The tokens in a value: a text, an object with a content, or several of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict) and isinstance(value.get('content'), str):
        yield value['content']
    elif isinstance(value, list | dict):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _contents_of(one)
