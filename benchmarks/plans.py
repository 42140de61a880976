"""Plans of the paper's models on three kinds of TPU, as one table in docs/SCALING.md.

    python -m benchmarks.plans              (needs the extra `plan`; two hours on two cores)
    python -m benchmarks.plans base v5e     (only cells whose label has all of these words)

Every cell is `python -m albert_jax.plan`, with the compiler's default optimisation, and is kept in
docs/plans.json: what is there is not compiled again without --again. The table is written between
its markers in docs/SCALING.md; --write does that alone. Nothing is measured on hardware.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
PLANS = _ROOT / 'docs' / 'plans.json'
_PAGE = _ROOT / 'docs' / 'SCALING.md'
_MARKERS = '<!-- plans: written by benchmarks.plans -->', '<!-- end of plans -->'
_MODELS = ('base', 'base v1', 'large', 'xlarge', 'xxlarge', 'bert_base')
_CHIPS = ('v5e', 'v6e', 'v5p')
_LENGTHS = (512, 128)
_BATCH_SIZE = 4096
# Where version 1's dropout is not meant.
_NO_DROPOUT = (
    '--config.model.hidden_dropout_prob=0', '--config.model.attention_probs_dropout_prob=0',
)  # fmt: skip
# Tokens of a microbatch on one chip. Of 8,192 to 32,768 base and xxlarge were estimated alike on
# v5e; v5p has six times the memory.
_TOKENS = {'xlarge': 8192, 'xxlarge': 4096}
_DEFAULT_TOKENS = 16384
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Cell:
    """One plan: a model in batches of 4096 sequences of a length, on a slice."""

    model: str
    length: int
    chip: str

    @property
    def label(self) -> str:
        """As in 'base v1, 512 tokens, v5e'."""
        return f'{self.model}, {self.length} tokens, {self.chip}'

    @property
    def topology(self) -> str:
        """16 chips for xxlarge, 8 for the others."""
        shapes = ('4x4', '2x2x4') if self.model == 'xxlarge' else ('2x4', '2x2x2')
        return f'{self.chip}:{shapes[self.chip == "v5p"]}'

    @property
    def num_microbatches(self) -> int:
        """So many that a microbatch has as many tokens as the model takes well."""
        tokens = _TOKENS.get(self.model, _DEFAULT_TOKENS) * (2 if self.chip == 'v5p' else 1)
        num_chips = 16 if self.model == 'xxlarge' else 8
        return max(1, _BATCH_SIZE // num_chips * self.length // tokens)

    @property
    def arguments(self) -> list[str]:
        """Of `albert_jax.plan`."""
        name, _, version = self.model.partition(' ')
        return [
            f'--config=configs/pretrain.py:{name}',
            f'--topology={self.topology}',
            f'--config.loop.batch_size={_BATCH_SIZE}',
            f'--config.loop.num_microbatches={self.num_microbatches}',
            f'--config.pretraining.sequence_length={self.length}',
            *(() if version else _NO_DROPOUT),
        ]


CELLS = [Cell(model, length, chip) for model in _MODELS for length in _LENGTHS for chip in _CHIPS]


def compile_cell(cell: Cell) -> dict[str, Any]:
    """The plan's JSON.

    Raises:
      RuntimeError: if the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'plan.json'
        command = [sys.executable, '-m', 'albert_jax.plan', f'--json={path}', *cell.arguments]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f'{cell.label}: {done.stderr.strip()[-500:]}')
        return json.loads(path.read_text())


def read() -> dict[str, Any]:
    """The plans that there are, by the label of their cell."""
    return json.loads(PLANS.read_text()) if PLANS.exists() else {}


def ratio(plan: Mapping[str, Any]) -> float:
    """The estimated step over the bound by arithmetic."""
    return _seconds(plan) / plan['on_paper']['flops_seconds']


def _seconds(plan: Mapping[str, Any]) -> float:
    compiled = plan['compiled']
    return compiled['estimated_seconds'] + compiled['kernel_seconds']


def table(plans: Mapping[str, Any]) -> str:
    """All plans that there are, as a Markdown table."""
    lines = [
        '| model, tokens | slice | microbatches | peak GiB, of available | bound by arithmetic | '
        'estimate | of it attention, at its bound by | estimate / bound | sequences/s and chip |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    lines += [_row(cell, plans[cell.label]) for cell in CELLS if cell.label in plans]
    return '\n'.join(lines)


def _row(cell: Cell, plan: Mapping[str, Any]) -> str:
    compiled, memory = plan['compiled'], plan['memory_bytes'] / _GIB
    start = f'| {cell.model}, {cell.length} | {cell.topology} | {cell.num_microbatches} | '
    bound = f'{plan["on_paper"]["flops_seconds"]:.2f} s'
    if not plan['fits']:
        return f'{start}does not fit: {compiled["message"]} | {bound} | – | – | – | – |'
    seconds = _seconds(plan)
    speed = _BATCH_SIZE / seconds / plan['num_chips']
    return (
        f'{start}{compiled["peak_bytes"] / _GIB:.2f} of {memory:.2f} | {bound} | {seconds:.2f} s | '
        f'{compiled["kernel_seconds"]:.2f} s, {compiled["kernel_limit"]} | {ratio(plan):.2f} | '
        f'{speed:,.0f} |'
    )


def write(plans: Mapping[str, Any]) -> None:
    """Writes the plans and the table of them."""
    PLANS.write_text(json.dumps(plans, indent=1, sort_keys=True) + '\n')
    start, end = _MARKERS
    text = _PAGE.read_text()
    before, rest = text.split(start)
    after = rest.split(end)[1]
    _PAGE.write_text(f'{before}{start}\n\n{table(plans)}\n\n{end}{after}')


def main() -> None:
    parser = argparse.ArgumentParser(description='Plans of all models, as a table in the docs.')
    parser.add_argument('words', nargs='*', help='only cells whose label has all of these')
    parser.add_argument('--again', action='store_true', help='also what is in docs/plans.json')
    parser.add_argument('--write', action='store_true', help='only write the table')
    arguments = parser.parse_args()
    plans = read()
    for cell in CELLS:
        is_wanted = set(arguments.words) <= set(cell.label.replace(',', '').split())
        if arguments.write or not is_wanted or (cell.label in plans and not arguments.again):
            continue
        plans[cell.label] = compile_cell(cell)
        write(plans)
        print(_row(cell, plans[cell.label]), flush=True)
    write(plans)


if __name__ == '__main__':
    main()
