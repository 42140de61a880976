"""Nested sections, as in a config, as one mapping of addresses."""

from typing import Any


def flatten_sections(content: Any, address: str = '') -> dict[str, Any]:
    """The values of nested mappings by their addresses, as in `loop.num_steps`.

    Args:
      content: mappings of mappings; anything else is a value.
      address: of the content itself; empty for the root.
    """
    if not isinstance(content, dict):
        return {address: content}
    return {
        name: value
        for key, inner in content.items()
        for name, value in flatten_sections(inner, f'{address}.{key}' if address else key).items()
    }
