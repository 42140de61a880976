"""JSON as any reader takes it: without Infinity and NaN, which Python writes and JSON lacks."""

import json
import math
from typing import Any


def to_json(content: Any, *, indent: int | None = None, ensure_ascii: bool = True) -> str:
    """JSON in which a number that is not finite is null.

    Args:
      content: anything that `json.dumps` takes.
      indent: as of `json.dumps`.
      ensure_ascii: as of `json.dumps`.
    """
    try:
        return json.dumps(content, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)
    except ValueError:
        finite = _finite(content)
        return json.dumps(finite, indent=indent, ensure_ascii=ensure_ascii, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content
