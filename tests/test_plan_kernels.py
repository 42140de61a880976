"""The bound of attention kernels by hand, and the published table of plans."""

import dataclasses
import json

import pytest

from albert_jax.model.config import SIZES
from albert_jax.planning import kernels
from albert_jax.planning.topologies import CHIPS
from benchmarks import plans
from tests.conftest import ROOT
from tests.test_planning import compiled_plan

BASE = dataclasses.replace(SIZES['albert_base'], remat='full')


def test_heads_of_64_half_fill_a_matrix_unit_of_128():
    """Nine products of 512 × 512 × 64 for each head of each layer, at twice their price."""
    found = kernels.attention_bound(BASE, 512, CHIPS['v5e'])
    flops = 9 * 2 * 512 * 512 * 64 * 12 * 12
    assert found.implementation == 'fused'
    assert found.limit == 'matrix unit'
    assert found.seconds == pytest.approx(2 * flops / 197e12)
    without = kernels.attention_bound(dataclasses.replace(BASE, remat='none'), 512, CHIPS['v5e'])
    assert without.seconds == pytest.approx(found.seconds * 7 / 9)
    # Heads of 128 fill it, and half fill one of 256.
    wide = dataclasses.replace(BASE, hidden_size=1536)
    assert kernels.attention_bound(wide, 512, CHIPS['v5e']).seconds == pytest.approx(found.seconds)
    six = kernels.attention_bound(BASE, 512, CHIPS['v6e'])
    assert six.seconds == pytest.approx(4 * flops / 918e12)


def test_the_busiest_part_is_the_bound():
    """Dropout is work for the vector unit, short sequences are copied more than computed."""
    model = dataclasses.replace(BASE, attention_probs_dropout_prob=0.1)
    found = kernels.attention_bound(model, 512, CHIPS['v6e'])
    assert found.implementation == 'fused'
    assert found.limit == 'vector unit'
    operations = 2 * (8.0 + 8.0) + 15.7 + 13.7
    registers = 512 * 512 * 12 * 12 / 1024
    assert found.seconds == pytest.approx(operations / 4 * registers / 1.751e9)
    short = kernels.attention_bound(BASE, 128, CHIPS['v6e'])
    assert short.limit == 'main memory'
    assert short.seconds == pytest.approx(15 * 12 * 128 * 768 * 2 / 1640e9)


def test_longer_sequences_are_planned_with_splash():
    model = dataclasses.replace(BASE, max_position_embeddings=1024)
    found = kernels.attention_bound(model, 1024, CHIPS['v5e'])
    assert (found.implementation, found.limit) == ('splash', 'matrix unit')


def test_the_page_has_the_table_of_the_plans():
    found = plans.read()
    assert plans.table(found) in (ROOT / 'docs' / 'SCALING.md').read_text()
    assert set(found) <= {cell.label for cell in plans.CELLS}
    assert plans.ratio(found['base, 512 tokens, v5e']) <= 1.8


def test_each_cell_is_a_slice_that_exists_and_divides():
    from albert_jax.planning import topologies

    assert len({cell.label for cell in plans.CELLS}) == len(plans.CELLS) == 36
    for cell in plans.CELLS:
        where = topologies.parse(cell.topology)
        assert plans._BATCH_SIZE % (where.num_devices * cell.num_microbatches) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ('label', 'highest'),
    [
        ('base, 512 tokens, v5e', 1.8),
        ('xxlarge, 512 tokens, v5e', 1.32),
        ('base v1, 512 tokens, v5e', None),
    ],
)
def test_plans_are_as_published(tmp_path, label, highest):
    cell = next(cell for cell in plans.CELLS if cell.label == label)
    name, topology, *overrides = cell.arguments
    name = name.rpartition(':')[2]
    found, _ = compiled_plan(tmp_path, name, topology.partition('=')[2], *overrides)
    published = plans.read().get(label)
    if published:
        assert plans.ratio(found) == pytest.approx(plans.ratio(published), rel=0.02)
    if highest:
        assert plans.ratio(found) <= highest
    assert json.loads((tmp_path / 'plan.json').read_text())['fits']
