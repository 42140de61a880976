"""Arrays in an answer of JSON."""

import base64
from typing import Any

import numpy as np


def packed(weights: np.ndarray) -> dict[str, Any]:
    """Numbers from 0 to 1 as bytes, 0 to 255; a page wants a picture, and not digits."""
    content = np.round(weights * 255).astype(np.uint8)
    return {'shape': list(content.shape), 'bytes': base64.b64encode(content.tobytes()).decode()}
