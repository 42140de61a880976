"""Numbers that are not finite: in labels, steps, metrics, scores and files of JSON."""

import ast
import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from albert_jax import finetune
from albert_jax.cli.errors import UserError
from albert_jax.cli.json_output import to_json
from albert_jax.interop.run_folder import best_step
from albert_jax.tasks import metrics
from albert_jax.tasks.numbers import parse_number
from albert_jax.tasks.output import json_lines
from albert_jax.training import learning_curve
from albert_jax.training.metrics_file import read_lines
from albert_jax.training.not_finite import nothing_learnt, too_many_in_a_row
from albert_jax.training.patience import History
from albert_jax.training.telemetry import Telemetry, Work
from launch import record, results
from tests import tiny
from tests.conftest import ROOT

MAX = float(np.finfo(np.float32).max)


def strict_json(text: str):
    """As a reader that knows JSON alone."""

    def refuse(constant):
        raise AssertionError(f'{constant} is no JSON')

    return json.loads(text, parse_constant=refuse)


# JSON.

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


def without_infinities(value):
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: without_infinities(inner) for key, inner in value.items()}
        case list():
            return [without_infinities(inner) for inner in value]
    return value


@given(values)
@example({'loss': math.inf, 'of': [math.nan, {'a': (-math.inf, 1.5)}], 'É': 1e308})
def test_json_is_what_any_reader_takes(value):
    value = json.loads(json.dumps(value))
    for text in (to_json(value), to_json(value, indent=2), to_json(value, ensure_ascii=False)):
        assert strict_json(text) == without_infinities(value)


# Whose content is text and whole numbers alone, or is hashed and read by nobody.
WITHOUT_FLOATS = {
    'albert_jax/interop/checksums.py', 'albert_jax/interop/exported.py',
    'albert_jax/interop/huggingface.py', 'albert_jax/interop/huggingface_tokenizer.py',
    'albert_jax/training/distributed.py', 'albert_jax/tasks/race.py',
    'albert_jax/tasks/tables.py', 'albert_jax/tasks/features.py', 'albert_jax/tasks/task.py',
    'albert_jax/data/dataset.py', 'albert_jax/interop/huggingface_added_tokens.py',
    'albert_jax/pretraining/continuation.py', 'albert_jax/tasks/multilabel.py',
    'albert_jax/data/beam_preparation.py', 'albert_jax/data/hub_tokenizer.py',
    'albert_jax/service/middleware.py', 'albert_jax/service/server.py',
    'albert_jax/cli/json_output.py', 'albert_jax/cli/next_steps.py', 'albert_jax/cli/streams.py',
}  # fmt: skip


def test_every_writer_of_numbers_writes_json():
    """A new one uses to_json, or is listed above."""
    found = set()
    for folder in ('albert_jax', 'launch'):
        for path in (ROOT / folder).rglob('*.py'):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if is_dump(node)]
            found |= {str(path.relative_to(ROOT))} if calls else set()
    assert found <= WITHOUT_FLOATS


def is_dump(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    of_json = isinstance(node.func.value, ast.Name) and node.func.value.id == 'json'
    return of_json and node.func.attr in ('dump', 'dumps')


def test_predictions_without_a_value_are_null():
    text = json_lines([{'id': '0', 'prediction': math.nan}, {'id': 'é', 'prediction': 1.5}])
    assert [strict_json(line)['prediction'] for line in text.splitlines()] == [None, 1.5]
    assert 'é' in text


# Labels.


@given(st.floats() | st.sampled_from([MAX, -MAX, math.nextafter(MAX, math.inf), 1e39, 5e-324]))
def test_a_label_is_a_number_of_float32_or_refused(value):
    text = repr(value)
    if math.isfinite(value) and abs(value) <= MAX:
        assert parse_number(text, 'a.tsv, line 2') == value
        assert np.isfinite(np.float32(value))
    else:
        with pytest.raises(UserError, match='^a.tsv, line 2: the label') as error:
            parse_number(text, 'a.tsv, line 2')
        beyond = 'is beyond 3.4e+38' in str(error.value)
        assert beyond == math.isfinite(value)


@pytest.mark.parametrize(
    ('text', 'message'),
    [('1e400', 'is beyond 3.4e\\+38'), ('-1e39', 'divide all labels'), ('1e', 'is not a number'),
     ('1_000', "^x: the label '1_000' is not a number"), ('1_0.5e1_0', 'is not a number'),
     ('1,5', 'is not a number'), ('Infinity', 'is not a number'), ('nan', 'is not a number')],
)  # fmt: skip
def test_what_is_said_of_a_label(text, message):
    with pytest.raises(UserError, match=message):
        parse_number(text, 'x')


@pytest.mark.parametrize(
    ('text', 'value'), [('+1.50', 1.5), ('.5', 0.5), ('1.', 1), ('１.５', 1.5), ('٣', 3)]
)
def test_digits_of_any_script_are_a_number(text, value):
    assert parse_number(text, 'x') == value


@pytest.mark.parametrize('name', ['train', 'dev'])
def test_a_label_beyond_float32_is_refused_with_its_line(name, checkpoint, tmp_path):
    rows = {'train': ['a\t1', 'b\t2', 'c\t3'], 'dev': ['a\t1', 'b\t2', 'c\t3']}
    rows[name][1] = 'b\t1e39'
    for part, lines in rows.items():
        tiny.write_lines(tmp_path / f'{part}.tsv', 'text\tlabel', *lines)
    with pytest.raises(UserError, match=rf"{name}.tsv, line 3: the label '1e39' is beyond"):
        finetune.main([*flags(checkpoint, tmp_path), f'--workdir={tmp_path}/run'])
    assert not (tmp_path / 'run').exists()


def test_metrics_of_large_numbers_do_not_overflow():
    labels, predicted = np.float32([1e30, -1e30, 3e30]), np.float32([2e30, 0, 4e30])
    assert metrics.mean_squared_error(labels, predicted) == pytest.approx(1e60, rel=1e-6)
    # Moved by the same number, but the last one less: r of (1, −1, 3) and (2, 0, 4).
    assert metrics.pearson(labels, predicted) == pytest.approx(1, rel=1e-6)


# Runs.


def flags(checkpoint, folder, *more):
    """A regression of 6 steps of 8 examples."""
    return tiny.finetune_flags(
        checkpoint, folder, folder / 'cache', '--config.loop.num_steps=6',
        '--config.loop.batch_size=8', '--config.loop.log_every=2', '--config.loop.eval_every=4',
        '--config.loop.checkpoint_every=4', '--config.optimizer.warmup_steps=2', *more,
        task='regression',
    )  # fmt: skip


def write_numbers(folder, train):
    lines = [f'{tiny.POSITIVE if number else "list"}\t{number}' for number in train]
    tiny.write_lines(folder / 'train.tsv', 'text\tlabel', *lines)
    tiny.write_lines(folder / 'dev.tsv', 'text\tlabel', 'list\t0', f'{tiny.POSITIVE}\t1')


def test_a_run_of_which_no_step_is_finite_fails(checkpoint, tmp_path, capsys):
    # In float32 each label fits, and its square does not.
    write_numbers(tmp_path, [1e30] * 16)
    arguments = [*flags(checkpoint, tmp_path), f'--workdir={tmp_path}/run']
    message = r'All 6 steps were skipped, from step 1 on.*the loss of the last step is inf.*labels'
    with pytest.raises(UserError, match=message):
        finetune.main(arguments)
    assert not (tmp_path / 'run' / 'results.json').exists()
    text = (tmp_path / 'run' / 'metrics.jsonl').read_text()
    train = [line for line in map(strict_json, text.splitlines()) if line['split'] == 'train']
    assert [(line['step'], line['loss'], line['skipped_steps']) for line in train] == [
        (2, None, 2), (4, None, 4), (6, None, 6),
    ]  # fmt: skip
    assert 'loss undefined skipped_steps 4' in capsys.readouterr().out
    # Started again it resumes, and does not end as a success either.
    with pytest.raises(UserError, match=message):
        finetune.main(arguments)


def test_a_run_with_some_steps_skipped_says_so(checkpoint, tmp_path, capsys):
    write_numbers(tmp_path, [0, 1] * 15 + [1, 1e30])
    assert finetune.main([*flags(checkpoint, tmp_path), f'--workdir={tmp_path}/run']) == 0
    lines = read_lines(tmp_path / 'run' / 'metrics.jsonl')
    skipped = [line['skipped_steps'] for line in lines if line['split'] == 'train'][-1]
    # One batch of four has the large label, in each pass over the examples.
    assert 1 <= skipped <= 2
    assert f'note: {skipped} of 6 steps were skipped, because' in capsys.readouterr().out
    assert strict_json((tmp_path / 'run' / 'results.json').read_text())['step'] in (4, 6)


def test_the_message_names_the_number_that_is_not_finite():
    said = {
        name: str(too_many_in_a_row(20, 20, np.float32(norms)))
        for name, norms in {
            'loss': [np.nan, np.nan, np.nan],
            'gradient': [1.0, np.inf, np.inf],
            'update': [1.0, 2.0, -np.inf],
        }.items()
    }
    for name, sentence in said.items():
        assert f'the {name} of the last step is' in sentence
        assert 'lower optimizer.learning_rate' in sentence and '\n' not in sentence
    assert 'compute_dtype=float32' in said['gradient'] and 'weight_decay' in said['update']
    assert 'All 3 steps were skipped' in str(nothing_learnt(3, None))


def test_lines_without_a_loss_say_so(tmp_path, capsys):
    with Telemetry(tmp_path, 0, 10, 4, lambda step: Work(8, 1e9), 1) as log:
        log.start_clock(1)
        log.train_line(5, {'loss': None, 'skipped_steps': 4})
        log.train_line(10, {'loss': 1.5, 'grad_norm': math.inf, 'skipped_steps': 4})
        log.eval_line(10, {'mlm_loss': math.inf, 'accuracy': math.nan, 'f1': 0.5})
    lines = [strict_json(x) for x in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [line.get('loss') for line in lines] == [None, 1.5, None]
    assert lines[1]['grad_norm'] is None
    assert (lines[2]['mlm_loss'], lines[2]['accuracy'], lines[2]['f1']) == (None, None, 0.5)
    assert 'step 5/10  loss undefined skipped_steps 4' in capsys.readouterr().out


def test_lines_of_before_become_json_when_the_run_resumes(tmp_path):
    old = '{"step": 1, "split": "validation", "mlm_loss": Infinity, "f1": NaN}\n'
    (tmp_path / 'metrics.jsonl').write_text(old)
    with Telemetry(tmp_path, 1, 10, 4, lambda step: Work(8, 1e9), 1):
        pass
    assert strict_json((tmp_path / 'metrics.jsonl').read_text())['mlm_loss'] is None


# Scores.

scores = st.none() | st.floats()


@given(st.lists(scores, min_size=1, max_size=8), st.booleans())
@example([1e12, None], True)
@example([-1e12, math.nan], False)
@example([math.inf, 3.0], False)
def test_an_evaluation_without_a_value_is_never_the_best(given_scores, is_lower_better):
    history = History('x', is_lower_better, patience=0)
    added = [history.add({} if value is None else {'x': value}) for value in given_scores]
    assert all(math.isfinite(score) for score in added)
    best = best_step(dict(enumerate(added)), is_lower_better)
    finite = [value for value in given_scores if value is not None and math.isfinite(value)]
    if finite:
        assert given_scores[best] == (min if is_lower_better else max)(finite)


def test_the_patience_ends_where_nothing_has_a_value():
    history = History('x', False, patience=2)
    for value in (math.nan, math.inf, math.nan):
        assert not history.is_stale
        # One that did not look for the metric does not count.
        history.add({'loss': 1.0})
        history.add({'x': value})
    assert history.is_stale


# Readers.


def test_the_learning_curve_leaves_out_what_has_no_value(tmp_path):
    lines = [
        {'step': 1, 'split': 'train', 'mlm_loss': 7.0, 'mlm_accuracy': 0.1},
        {'step': 2, 'split': 'train', 'loss': None},
        {'step': 2, 'split': 'validation', 'mlm_loss': None, 'mlm_accuracy': 0.1},
    ]
    file = tmp_path / 'metrics.jsonl'
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    with pytest.raises(UserError, match='has no evaluation whose loss is finite'):
        learning_curve.read_metrics(tmp_path)
    with file.open('a') as stream:
        stream.write('{"step": 3, "split": "validation", "mlm_loss": 6.5, "mlm_accuracy": 0.2}\n')
        stream.write('{"step": 4, "split": "validation", "mlm_loss": NaN, "mlm_accuracy": 0.2}\n')
    learning_curve.draw({'a': learning_curve.read_metrics(tmp_path)}, tmp_path / 'curve.png')
    assert (tmp_path / 'curve.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('value', ['Infinity', 'NaN', 'null'])
def test_a_report_shows_what_has_no_value_as_undefined(value, tmp_path):
    """Infinity and NaN are in files of before."""
    folder = tmp_path / 'm' / 'stsb'
    record.write_json(folder / record.STAGE_FILE, {'state': record.FINISHED, 'settings': {}})
    (folder / 'results.json').write_text(f'{{"step": 3, "pearson": {value}, "spearman": 0.5}}')
    members = [{'name': 'm', 'row': 'm', 'num_params': 3, 'fields': {}, 'stages': []}]
    assert results._cell(tmp_path, {}, members, 'stsb.pearson').text('x') == 'undefined'
    assert results._cell(tmp_path, {}, members, 'stsb.spearman').text('x') == '50.0'
