"""Trains a config and records it in a small file, which `make demo` shows beside its own run.

    python -m albert_jax.demo --output=demo     (prepares demo/corpus)
    python -m benchmarks.record_run --config=configs/pretrain.py:tiny --config.loop.num_steps=1321 \
        --corpus=demo/corpus --workdir=runs/tiny --output=configs/recorded/tiny.json

So many steps take the FLOPs of the demo's. A run that is finished already is not trained again.
"""

import argparse
from pathlib import Path

from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import local_path
from albert_jax.pretraining import job
from albert_jax.runs.runs import PretrainRun


def main() -> None:
    """Trains and writes the file."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('--config', required=True, help='FILE.py:NAME')
    parser.add_argument('--corpus', type=local_path, required=True, help='what prepare wrote')
    parser.add_argument('--workdir', type=local_path, required=True, help='of the training')
    parser.add_argument('--output', type=local_path, required=True, help='the JSON file to write')
    flags, overrides = parser.parse_known_args()
    try:
        status = train(flags.config, overrides, flags.corpus, flags.workdir, flags.output)
    except UserError as error:
        raise SystemExit(f'error: {error}') from error
    raise SystemExit(status)


def train(config: str, overrides: list[str], corpus: Path, workdir: Path, output: Path) -> int:
    """Trains a config on a corpus and records it; returns the exit status.

    Raises:
      UserError: if there can be no such run.
    """
    values = command.read_config(config, [*overrides, f'--config.data.path={corpus}'])
    prepared = job.prepare(PretrainRun.from_dict(values))
    status = job.pretrain(prepared, workdir)
    if status == 0:
        job.record(prepared, ' '.join([config, *overrides]), workdir).write(output)
        print(f'Wrote {output}.')
    return status


if __name__ == '__main__':
    main()
