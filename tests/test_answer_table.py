"""Answers on a terminal."""

import io

from rich.console import Console

from albert_jax.tasks.answer_table import answer_table
from albert_jax.tasks.text_examples import TextExample


def shown(examples, predictions) -> list[str]:
    table = answer_table(examples, predictions)
    assert table is not None
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(table)
    return [
        [cell.strip() for cell in line.strip('│').split('│')]
        for line in console.file.getvalue().splitlines()
        if line.startswith('│')
    ]


def texts(*pairs) -> list[TextExample]:
    return [
        TextExample(f'f, line {number}', str(number), first, second, None)
        for number, (first, second) in enumerate(pairs)
    ]


def test_a_class_stands_beside_its_text_with_its_probability():
    predictions = [
        {'id': '0', 'prediction': 'positive',
         'probabilities': {'negative': 0.17264, 'positive': 0.82736}},
        {'id': '1', 'prediction': 'negative', 'probabilities': {'negative': 1.0, 'positive': 0.0}},
    ]  # fmt: skip
    rows = shown(texts(('A [bold]fine[/bold] film.', None), ('A man', 'A woman')), predictions)
    assert rows == [
        ['A [bold]fine[/bold] film.', 'positive', '82.7%'],
        ['A man', 'negative', '100.0%'],
        ['A woman', '', ''],
    ]


def test_several_labels_have_a_line_each_and_none_is_said():
    predictions = [
        {'id': '0', 'prediction': ['joy', 'fear'],
         'probabilities': {'joy': 0.9, 'anger': 0.1, 'fear': 0.512}},
        {'id': '1', 'prediction': [], 'probabilities': {'joy': 0.1, 'anger': 0.1, 'fear': 0.1}},
    ]  # fmt: skip
    rows = shown(texts(('a', None), ('b', None)), predictions)
    assert rows == [['a', 'joy', '90.0%'], ['', 'fear', '51.2%'], ['b', 'none', '']]


def test_numbers_have_no_probability_and_long_texts_are_whole():
    text = 'word ' * 40
    rows = shown(texts((text, None)), [{'id': '0', 'prediction': 3.14159265}])
    assert {len(row) for row in rows} == {2} and rows[0][1] == '3.142'
    assert ' '.join(row[0] for row in rows).split() == text.split()


def test_other_examples_have_no_table():
    assert answer_table([object()], [{'id': '0', 'prediction': ['B-PER']}]) is None
