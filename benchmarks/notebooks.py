"""Executes the notebooks and saves them with their outputs.

    python -m benchmarks.notebooks [notebooks/NAME.ipynb …]    (needs nbclient and ipykernel)

Each is executed as a reader would, from its folder, in the order of its cells; what it has trained
before is found again in runs/. A digest of the cells is saved with the outputs, by which
tests/test_notebooks.py knows that they belong together.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / 'notebooks'
# pretrain.ipynb trains what the next two load.
ORDER = ('pretrain', 'finetune', 'inside', 'ablation', 'translate')
# Of a notebook's metadata: the digest of the cells whose outputs are saved.
EXECUTED = 'executed_cells'


def digest(notebook: dict[str, Any]) -> str:
    """Of the code of all cells, in their order.

    Args:
      notebook: as JSON.
    """
    code = [''.join(x['source']) for x in notebook['cells'] if x['cell_type'] == 'code']
    return hashlib.sha256(json.dumps(code).encode()).hexdigest()


def execute(path: Path) -> None:
    """Executes a notebook and writes it with its outputs, or fails with the cell that failed."""
    import nbclient
    import nbformat
    from jupyter_client.kernelspec import KernelSpecManager

    notebook = nbformat.read(path, as_version=4)
    notebook.nbformat_minor = 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f'cell-{number}'
    client = nbclient.NotebookClient(
        notebook, timeout=None, kernel_name='python3', record_timing=False,
        resources={'metadata': {'path': str(path.parent)}},
    )  # fmt: skip
    # No folders of installed kernels: the one of this Python, whose corpus `builtin` is.
    client.create_kernel_manager().kernel_spec_manager = KernelSpecManager(kernel_dirs=[])
    client.execute()
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type == 'code':
            cell.outputs = [_cleaned(output) for output in _merged(cell.outputs)]
    notebook.metadata = {
        'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
        'language_info': {'name': 'python'},
        EXECUTED: digest(notebook),
    }
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    path.write_text(text.replace(f'{ROOT}/', '') + '\n')


def _merged(outputs: Sequence[Any]) -> list[Any]:
    """The outputs with what was printed piece by piece in one."""
    merged: list[Any] = []
    for output in outputs:
        is_text = output.output_type == 'stream'
        if is_text and merged and merged[-1].get('name') == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def _cleaned(output: Any) -> Any:
    """An output without what a bar has written over, and with the picture alone of a picture."""
    if output.output_type == 'stream':
        lines = output.text.split('\n')
        output.text = '\n'.join(line.rstrip('\r').rpartition('\r')[2] for line in lines)
    elif 'image/png' in output.get('data', {}):
        output.data = {'image/png': output.data['image/png']}
    return output


def main(arguments: Sequence[str]) -> int:
    """Executes those that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'notebooks', nargs='*', type=Path, default=[FOLDER / f'{name}.ipynb' for name in ORDER]
    )
    paths = parser.parse_args(arguments).notebooks
    for path in paths:
        if not path.is_file():
            parser.error(f'there is no notebook {path}')
    for path in paths:
        print(f'{path} …', flush=True)
        execute(path.resolve())
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
