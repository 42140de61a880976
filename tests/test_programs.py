"""Programs that are kept on disk: read and not traced again, and never for another function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from albert_jax.training import programs
from albert_jax.training.programs import Programs
from albert_jax.training.sharding import make_mesh, put_batch, replicated
from tests.programs_folder import kept_programs


@pytest.fixture(autouse=True)
def folder(tmp_path):
    with kept_programs(tmp_path) as folder:
        yield folder


class Traced:
    """A function that counts how often it is traced."""

    def __init__(self, *identity, factor=2.0):
        self.count, self._factor = 0, factor
        self.programs = Programs(jax.jit(self), *identity)

    def __call__(self, params, x):
        self.count += 1
        return {'y': self._factor * params['w'] * x.astype(jnp.float32)}


PARAMS, X = {'w': jnp.float32(3)}, np.arange(4, dtype=np.float32)


def value(traced, x=X):
    return np.asarray(traced.programs(PARAMS, x)['y']).tolist()


def test_a_program_is_read_and_not_traced(folder):
    first, second, other = Traced('a', 1), Traced('a', 1), Traced('a', 2, factor=5.0)
    for traced in (first, second, other):
        traced.programs.compile(PARAMS, X)
    assert (first.count, second.count, other.count) == (1, 0, 1)
    assert value(first) == value(second) == [0, 6, 12, 18] and value(other) == [0, 15, 30, 45]
    assert (first.count, second.count) == (1, 0) and second.programs.num_compiled == 1
    assert len(list(folder.iterdir())) == 2

    # Another shape is another program, and so is another type; without compile() as jit has it.
    second.programs.compile(PARAMS, X[:2])
    assert second.count == 1 and value(second, X[:2]) == [0, 6]
    assert value(second, X[:3]) == [0, 6, 12]
    assert second.count == 2 and second.programs.num_compiled == 3
    second.programs.compile(PARAMS, X.astype(np.int32))
    assert second.count == 3 and second.programs.num_compiled == 4


def test_a_program_of_several_devices_and_one_of_a_single_one(folder):
    """Eight devices are simulated; a program is read for those that it was compiled for."""
    mesh = make_mesh()
    assert mesh.size == 8
    split = put_batch(mesh, {'x': np.arange(8, dtype=np.float32)})['x']
    params = jax.device_put(PARAMS, replicated(mesh))
    one = jax.device_put(X, jax.devices()[3])
    for given, x in ((params, split), (jax.device_put(PARAMS, jax.devices()[3]), one)):
        for count in (1, 0):
            traced = Traced('a')
            traced.programs.compile(given, x)
            found = traced.programs(given, x)['y']
            np.testing.assert_array_equal(found, 6 * np.arange(x.size, dtype=np.float32))
            assert traced.count == count and found.sharding.device_set == x.sharding.device_set


def test_what_another_version_or_processor_compiled_is_not_read(monkeypatch):
    Traced('a').programs.compile(PARAMS, X)
    places = programs._environment()
    for index in range(len(places)):
        changed = (*places[:index], 'another', *places[index + 1 :])
        monkeypatch.setattr(programs, '_environment', lambda changed=changed: changed)
        traced = Traced('a')
        traced.programs.compile(PARAMS, X)
        assert traced.count == 1 and value(traced) == [0, 6, 12, 18]


@pytest.mark.parametrize('damage', [b'', b'x' * 100, None])
def test_a_damaged_program_is_compiled_anew(folder, damage):
    Traced('a').programs.compile(PARAMS, X)
    (file,) = folder.iterdir()
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage is None else damage)
    for count in (1, 0):
        traced = Traced('a')
        traced.programs.compile(PARAMS, X)
        assert traced.count == count and value(traced) == [0, 6, 12, 18]


def test_without_a_folder_nothing_is_kept(folder, tmp_path, monkeypatch):
    folder.write_text('a file where the folder would be')
    for _ in range(2):
        traced = Traced('a')
        traced.programs.compile(PARAMS, X)
        assert traced.count == 1 and value(traced) == [0, 6, 12, 18]


def test_whoever_wants_no_cache_has_none(folder):
    for setting, off in (
        ('jax_enable_compilation_cache', False),
        ('jax_compilation_cache_dir', None),
        ('jax_compilation_cache_dir', 'gs://bucket/folder'),
    ):
        programs._store.folder = None
        jax.config.update('jax_enable_compilation_cache', True)
        jax.config.update(setting, off)
        programs.keep_programs_whole()
        assert programs._store.folder is None


def test_what_jax_had_kept_is_not_written_again(folder):
    """What comes out of JAX's cache has no functions any more and would fail when it is called."""
    jax.config.update('jax_enable_compilation_cache', True)
    compilation_cache.reset_cache()
    np.testing.assert_array_equal(Traced('a').programs.function(PARAMS, X)['y'], 6 * np.arange(4))
    assert list(folder.parent.glob('*-cache'))
    programs.keep_programs_whole()
    for _ in range(2):
        traced = Traced('a')
        traced.programs.compile(PARAMS, X)
        assert value(traced) == [0, 6, 12, 18]
