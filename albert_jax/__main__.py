"""Lists the commands: `python -m albert_jax`."""

import ast
import sys
from pathlib import Path

_FOLDERS = {'albert_jax': Path(__file__).parent, 'launch': Path(__file__).parents[1] / 'launch'}
# In the order in which a newcomer meets them; any others follow.
_FIRST = (
    'demo', 'prepare', 'pretrain', 'fill_mask', 'curve', 'convert', 'finetune', 'evaluate',
    'predict', 'explain', 'distill', 'export', 'serve', 'plan', 'prepare_beam',
)  # fmt: skip


def commands() -> dict[str, str]:
    """What each command does in a line, by its module.

    Read from the files, so that nothing is imported.
    """
    found = {}
    for package, folder in _FOLDERS.items():
        names = sorted(path.stem for path in folder.glob('*.py') if not path.stem.startswith('__'))
        for name in sorted(names, key=lambda n: _FIRST.index(n) if n in _FIRST else len(_FIRST)):
            text = (folder / f'{name}.py').read_text(encoding='utf-8')
            if "__name__ == '__main__'" in text:
                line = (ast.get_docstring(ast.parse(text)) or '').splitlines()[0]
                found[f'{package}.{name}'] = line.partition(': `')[0].rstrip('.:')
    return found


def main() -> int:
    """Prints the list."""
    print('usage: python -m COMMAND --help\n\ncommands:')
    for module, line in commands().items():
        print(f'  {module:24} {line}')
    print('\nREADME.md walks through them.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
