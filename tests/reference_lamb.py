"""ALBERT's LAMB and its learning-rate schedules in float64 NumPy: an oracle for tests.

Nothing here imports from the package under test.
"""

import math
from collections.abc import Callable

import numpy as np

Leaves = dict[str, np.ndarray]


def is_bias_or_norm(path: str) -> bool:
    """Biases and LayerNorm parameters, which have neither weight decay nor a trust ratio."""
    return path.rsplit('/', maxsplit=1)[-1] in ('bias', 'scale')


def nothing(path: str) -> bool:
    """A predicate that holds for no path."""
    return False


def l2_norm(x: np.ndarray) -> float:
    """Euclidean norm over all elements, whatever the shape."""
    return math.sqrt(float(np.sum(x * x)))


def clip_by_global_norm(grads: Leaves, clip: float) -> Leaves:
    """Scale all gradients by min(1, clip / norm), with the norm over all leaves together."""
    global_norm = math.sqrt(sum(l2_norm(grad) ** 2 for grad in grads.values()))
    factor = min(1.0, clip / global_norm) if global_norm > 0.0 else 1.0
    return {path: grad * factor for path, grad in grads.items()}


def trust_ratio(param: np.ndarray, update: np.ndarray) -> float:
    """||param|| / ||update||, or 1 where either norm is zero."""
    param_norm, update_norm = l2_norm(param), l2_norm(update)
    return param_norm / update_norm if param_norm > 0.0 and update_norm > 0.0 else 1.0


class Lamb:
    """LAMB as ALBERT was trained with: clipped gradients, by default no bias correction.

    Leaves for which `is_excluded(path)` holds get no weight decay and no trust ratio. Leaves for
    which `is_stacked(path)` holds have one layer for each index of axis 0, each with its own ratio.
    """

    def __init__(
        self,
        params: Leaves,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        clip: float = 1.0,
        is_excluded: Callable[[str], bool] = is_bias_or_norm,
        is_stacked: Callable[[str], bool] = nothing,
        bias_correction: bool = False,
    ) -> None:
        self.params = {path: np.array(leaf, np.float64) for path, leaf in params.items()}
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.weight_decay = weight_decay
        self.clip = clip
        self.is_excluded = is_excluded
        self.is_stacked = is_stacked
        self.bias_correction = bias_correction
        self.first_moment = {path: np.zeros_like(leaf) for path, leaf in self.params.items()}
        self.second_moment = {path: np.zeros_like(leaf) for path, leaf in self.params.items()}
        self.steps_taken = 0

    def step(self, grads: Leaves, lr: float) -> None:
        """Update the moments and `params` with one set of gradients."""
        if grads.keys() != self.params.keys():
            raise ValueError(f'paths differ: {sorted(grads.keys() ^ self.params.keys())}')
        grads = {path: np.asarray(grad, np.float64) for path, grad in grads.items()}
        self.steps_taken += 1
        for path, grad in clip_by_global_norm(grads, self.clip).items():
            if grad.shape != self.params[path].shape:
                raise ValueError(f'{path}: {grad.shape} is not {self.params[path].shape}')
            self._update_moments(path, grad)
            update = self._adam_update(path)
            if not self.is_excluded(path):
                update = update + self.weight_decay * self.params[path]
                update = self._apply_trust_ratio(path, update)
            self.params[path] = self.params[path] - lr * update

    def _update_moments(self, path: str, grad: np.ndarray) -> None:
        """Move both running means towards the gradient and its square."""
        first, second = self.first_moment[path], self.second_moment[path]
        self.first_moment[path] = self.beta1 * first + (1.0 - self.beta1) * grad
        self.second_moment[path] = self.beta2 * second + (1.0 - self.beta2) * grad * grad

    def _adam_update(self, path: str) -> np.ndarray:
        """The Adam direction m / (sqrt(v) + eps)."""
        first, second = self.first_moment[path], self.second_moment[path]
        if self.bias_correction:
            first = first / (1.0 - self.beta1**self.steps_taken)
            second = second / (1.0 - self.beta2**self.steps_taken)
        return first / (np.sqrt(second) + self.eps)

    def _apply_trust_ratio(self, path: str, update: np.ndarray) -> np.ndarray:
        """Scale the update by its trust ratio: one for the leaf, or one for each layer of it."""
        param = self.params[path]
        if not self.is_stacked(path):
            return trust_ratio(param, update) * update
        layers = [trust_ratio(p, u) * u for p, u in zip(param, update, strict=True)]
        return np.stack(layers)


def google_linear(step: int, peak: float, warmup: int, total: int) -> float:
    """Google's schedule: the decay counts from step 0, so the rate jumps down after warmup."""
    if step < warmup:
        return peak * step / warmup
    return peak * (1.0 - min(step, total) / total)


def standard_linear(step: int, peak: float, warmup: int, total: int) -> float:
    """From 0 up to the peak over `warmup` steps, then down to 0 at `total`, without a jump."""
    if step < warmup:
        return peak * step / warmup
    if step >= total:
        return 0.0
    return peak * (total - step) / (total - warmup)
