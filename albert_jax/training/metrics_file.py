"""The metrics of a run, a JSON object a line. Imports no JAX, so that drawing them is quick."""

import json
from pathlib import Path
from typing import Any

METRICS_FILE = 'metrics.jsonl'


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, without an incomplete last one."""
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:  # the last one, cut by a kill
            break
    return lines
