"""What a person should know of a run that goes on all the same."""

import sys


def note(text: str) -> None:
    """Prints a note to standard error."""
    print(f'note: {text}', file=sys.stderr)
