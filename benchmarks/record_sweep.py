"""Keeps what the report of a sweep reads, without weights, as one small file.

    python -m benchmarks.record_sweep runs/recipe docs/sweeps/recipe.tar.gz

Kept are the plan, and settings, metrics and results of each member all of whose stages are
finished. Unpacked, `launch.report` shows it and the sweep goes on from it.
"""

import argparse
from pathlib import Path

from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import local_path
from benchmarks import archive
from launch.record import FINISHED, PLAN_FILE, STAGE_FILE, read_record
from launch.results import read_plan

_OF_A_STAGE = (STAGE_FILE, 'metrics.jsonl', 'results.json')


def main() -> None:
    """Writes the file."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('sweep', type=local_path, help='folder of the sweep')
    parser.add_argument('output', type=local_path, help='the .tar.gz to write')
    flags = parser.parse_args()
    try:
        content = archive.packed(flags.sweep, kept_files(flags.sweep))
        archive.write(content, flags.output)
    except UserError as error:
        raise SystemExit(f'error: {error}') from error


def kept_files(root: Path) -> list[Path]:
    """What is kept of a sweep.

    Raises:
      UserError: if the folder has no plan, or a record that cannot be read.
    """
    files = [root / PLAN_FILE]
    for member in read_plan(root)['members']:
        keys = [stage['key'] for stage in member['stages']]
        if all(read_record(root, key).state == FINISHED for key in keys):
            files += [root / key / name for key in keys for name in _OF_A_STAGE]
    return [file for file in files if file.exists()]


if __name__ == '__main__':
    main()
