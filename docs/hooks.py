"""Makes the site of `make docs` from the Markdown as it lies in the repository, and the docstrings.

The pages keep their places, so that the links between them work on the site as in an editor. A
page for each room of the package is made here for mkdocstrings, which reads the sources alone:
neither JAX nor the package has to be installed.
"""

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# What is on the site beside docs/site/: text, and what it links to.
SHOWN = (
    '*.md', 'CITATION.cff', 'LICENSE', 'docs/*.md', 'docs/*.png', 'docs/images/*.png',
    'docs/sweeps/*.tar.gz', 'docs/models/*.tar.gz', 'launch/*.md', 'notebooks/*.ipynb',
)  # fmt: skip
API = 'docs/api'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and pictures, and a page for each room."""
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for name, text in api_pages().items():
        files.append(File.generated(config, f'{API}/{name}.md', content=text))
    return files


def api_pages() -> dict[str, str]:
    """The Markdown of each page of the reference, by its name."""
    package = ROOT / 'albert_jax'
    pages = {'albert_jax': _public_page(package)}
    for folder in sorted(path.parent for path in package.glob('*/__init__.py')):
        title = f'# albert_jax.{folder.name}\n\n{_summary(folder / "__init__.py")}\n'
        modules = [
            f'::: {_module(path)}'
            for path in sorted(folder.rglob('*.py'))
            if path.name != '__init__.py' or path.parent != folder
        ]
        pages[folder.name] = '\n\n'.join([title, *modules]) + '\n'
    return pages


def _public_page(package: Path) -> str:
    """What `import albert_jax` gives, from where each name is at home."""
    homes = next(
        ast.literal_eval(statement.value)
        for statement in ast.parse((package / '__init__.py').read_text(encoding='utf-8')).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == '_HOMES'
    )
    # References lead to the rooms' pages.
    options = '    options:\n      skip_local_inventory: true'
    names = [f'::: {home}.{name}\n{options}' for name, home in homes.items()]
    return '\n\n'.join(['# albert_jax', _summary(package / '__init__.py'), *names]) + '\n'


def _summary(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or ''


def _module(path: Path) -> str:
    return '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
