"""Keeps a model as one small file: its weights, rounded to bfloat16, and its vocabulary.

    python -m benchmarks.record_model runs/books docs/models/books.tar.gz

Commands take the file where they take a checkpoint. Rounded weights are float32 arrays as
before, of which half the bits are zero, so that they pack to half the size.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import local_path
from albert_jax.interop import native
from albert_jax.interop.native import Pretrained
from benchmarks import archive


def main() -> None:
    """Writes the file."""
    form = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument('checkpoint', type=local_path, help='a run or checkpoint of ours')
    parser.add_argument('output', type=local_path, help='the .tar.gz to write')
    flags = parser.parse_args()
    try:
        model = native.read(flags.checkpoint)
        archive.write(packed(model, flags.output.name.partition('.')[0]), flags.output)
    except UserError as error:
        raise SystemExit(f'error: {error}') from error


def packed(model: Pretrained, name: str) -> bytes:
    """A tar archive of a folder of the name, which holds the model with rounded weights."""
    rounded = jax.tree.map(
        lambda x: np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float32), model.params
    )
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / name
        folder.mkdir()
        native.write(replace(model, params=rounded), folder)
        return archive.packed(folder, [file for file in folder.rglob('*') if file.is_file()])


if __name__ == '__main__':
    main()
