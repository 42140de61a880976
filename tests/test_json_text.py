"""JSON and texts with one meaning."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albert_jax.cli.errors import UserError
from albert_jax.cli.json_text import check_text, is_visible, parse_json, parse_object, parse_row

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_VALUES)
def test_what_python_writes_is_read_back(value: object) -> None:
    assert parse_json(json.dumps(value), 'x') == value


@given(st.text(alphabet='{}[]",:0123456789.eE+-trufalsn\\ \n\ud83d'))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_json(text, 'x.json, line 3')
    except UserError as error:
        assert 'x.json, line 3' in str(error)


@pytest.mark.parametrize('text', ['{"a": 1, "a": 2}', '[{"b": {"a": 1, "c": 2, "a": 1}}]'])
def test_a_key_twice_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="x, line 1: a JSON object has the key 'a' twice"):
        parse_json(text, 'x, line 1')


def test_a_key_twice_that_is_not_read(text='{"m": {"k": 1, "k": 2}, "a": 1, "m": 2, "b": 3}'):
    assert parse_json(text, 'x', ('a', 'b')) == {'m': 2, 'a': 1, 'b': 3}
    with pytest.raises(UserError, match="has the key 'k' twice"):
        parse_json(text, 'x', ('a', 'k'))
    assert parse_row(text, 'x') == ({'m': 2, 'a': 1, 'b': 3}, ('m',))
    # The outermost object is meant, whose inner ones end before it.
    assert parse_row('{"m": {"k": 1, "k": 2}}', 'x')[1] == ()
    with pytest.raises(UserError, match='x is not a JSON object'):
        parse_row('[1]', 'x')


def test_a_key_twice_may_say_the_same_twice_in_a_file_of_others() -> None:
    assert parse_object('{"a": [1], "m": {"k": 1, "k": 1}, "a": [1]}', 'x') == {
        'a': [1], 'm': {'k': 1},
    }  # fmt: skip
    for text in ('{"a": 1, "a": 2}', '{"b": [{"a": null, "c": 2, "a": 1}]}'):
        with pytest.raises(UserError, match="x: a JSON object has the key 'a' twice, with differ"):
            parse_object(text, 'x')
    for text, message in (('[1]', 'x is not a JSON object'), ('{', 'x is not JSON')):
        with pytest.raises(UserError, match=message):
            parse_object(text, 'x')


def test_json_that_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(UserError, match='nested too deep'):
        parse_json('[' * 100_000, 'x')


def test_half_a_surrogate_pair_is_refused() -> None:
    text = json.loads('"a \\ud83d b"')
    with pytest.raises(UserError, match=r'x, line 2 has half a surrogate pair, \\ud83d'):
        check_text(text, 'x, line 2')


def test_what_can_be_seen() -> None:
    assert is_visible('a') and is_visible(' \u200b.')
    nothing = ('', ' \t', '\u200b', '\ufeff\x00\u2028', '\u3164', '\ufe0f', '\u2800 ')
    assert not any(map(is_visible, nothing))


@given(st.text(st.characters(exclude_categories=['Cs'])))
def test_a_text_of_characters_is_taken_as_it_is(text: str) -> None:
    assert check_text(text, 'x') == text
