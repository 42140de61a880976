"""What a person should know of the files of an input before they are read."""

import itertools

from albert_jax.cli.json_text import is_object_with_keys
from albert_jax.cli.notes import note
from albert_jax.data.corpus import Source, numbered_lines


def tell_of(source: Source) -> None:
    """Prints what is left out of an input, and whether it is read as what it is not.

    Args:
      source: an input.

    Raises:
      UserError: if it has no files, or one cannot be read.
    """
    files = source.files()
    _tell_of_folders(source, files)
    if source.kind == 'text':
        _tell_of_json(source, files)


def _tell_of_folders(source: Source, files: list[str]) -> None:
    others = sorted(set(source.matches()) - set(files))
    # Of a folder that ** goes into, the files are matched too.
    if others and '**' not in source.target:
        note(
            f'--input={source} matches {len(others):,} folders or pipes beside its files, such as '
            f'{others[0]}; they were left out.'
        )


def _tell_of_json(source: Source, files: list[str]) -> None:
    named = [path for path in files if _begins_with_object(path)]
    if named:
        others = f' and {len(named) - 1:,} other files' if len(named) > 1 else ''
        note(
            f'{named[0]}{others} of --input={source}: read as text, but the first line is a JSON '
            f'object, whose braces and keys go into the corpus too; --input=jsonl:{source.target} '
            f'takes the text of each line, by --text_key.'
        )


def _begins_with_object(path: str) -> bool:
    return any(is_object_with_keys(x) for _, x in itertools.islice(numbered_lines(path), 1))
