"""Muon with AdamW for the rest in float64 NumPy, from its description: an oracle for tests.

https://kellerjordan.github.io/posts/muon: Nesterov momentum of the gradient, here with the bias
corrections of Adam as optax has them, made orthogonal by five Newton-Schulz steps and scaled by
√max(1, columns / rows). Nothing here imports from the package under test.
"""

from collections.abc import Callable

import numpy as np

from tests.reference_lamb import Leaves, clip_by_global_norm, is_bias_or_norm

A, B, C = 3.4445, -4.7750, 2.0315


def newton_schulz(matrix: np.ndarray, num_steps: int = 5) -> np.ndarray:
    """The matrix with its singular values brought close to 1."""
    x = matrix / (np.linalg.norm(matrix) + 1e-8)
    if x.shape[0] > x.shape[1]:
        x = x.T
    for _ in range(num_steps):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon:
    """The parameters for which `is_kernel(path)` holds by Muon, all others by AdamW."""

    def __init__(
        self,
        params: Leaves,
        is_kernel: Callable[[str], bool],
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-6,
        adam_weight_decay: float = 0.0,
        clip: float = 1.0,
    ) -> None:
        self.params = {path: np.array(leaf, np.float64) for path, leaf in params.items()}
        self.is_kernel = is_kernel
        self.momentum, self.weight_decay, self.clip = momentum, weight_decay, clip
        self.betas, self.eps, self.adam_weight_decay = betas, eps, adam_weight_decay
        self.first = {path: np.zeros_like(leaf) for path, leaf in self.params.items()}
        self.second = {path: np.zeros_like(leaf) for path, leaf in self.params.items()}
        self.steps_taken = 0

    def step(self, grads: Leaves, muon_rate: float, adam_rate: float) -> None:
        """Update the moments and `params` with one set of gradients."""
        self.steps_taken += 1
        for path, grad in clip_by_global_norm(grads, self.clip).items():
            param = self.params[path]
            if self.is_kernel(path):
                update = self._muon_update(path, grad) + self.weight_decay * param
                self.params[path] = param - muon_rate * update
            else:
                decay = 0.0 if is_bias_or_norm(path) else self.adam_weight_decay
                update = self._adam_update(path, grad) + decay * param
                self.params[path] = param - adam_rate * update

    def _muon_update(self, path: str, grad: np.ndarray) -> np.ndarray:
        """The orthogonal direction of each layer of the leaf."""
        beta, steps = self.momentum, self.steps_taken
        self.first[path] = beta * self.first[path] + (1 - beta) * grad
        ahead = beta * self.first[path] / (1 - beta ** (steps + 1))
        ahead = ahead + (1 - beta) * grad / (1 - beta**steps)
        rows, columns = grad.shape[-2:]
        layers = ahead.reshape(-1, rows, columns)
        scale = np.sqrt(max(1.0, columns / rows))
        return np.stack([scale * newton_schulz(layer) for layer in layers]).reshape(grad.shape)

    def _adam_update(self, path: str, grad: np.ndarray) -> np.ndarray:
        """The Adam direction, with bias correction."""
        (beta1, beta2), steps = self.betas, self.steps_taken
        self.first[path] = beta1 * self.first[path] + (1 - beta1) * grad
        self.second[path] = beta2 * self.second[path] + (1 - beta2) * grad**2
        first = self.first[path] / (1 - beta1**steps)
        return first / (np.sqrt(self.second[path] / (1 - beta2**steps)) + self.eps)
