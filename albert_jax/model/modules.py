"""What every part of the model is made of: the weights of layers, dense maps, norms, dropout."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from albert_jax.model import matmul, remat
from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import drop
from albert_jax.model.elementwise import normalize
from albert_jax.model.rounding import from_bits

# Which unique layer's parameters a module uses; None where there is one.
Index = Int[Array, ''] | None


class Weights(nn.Module):
    """Base of modules that hold the parameters of `num_unique` layers, and use those of one.

    Parameters in bfloat16 may come as their bits (`rounding.round_kernels`).
    """

    config: AlbertConfig
    num_unique: int = 1

    def weight(
        self, name: str, init: Callable[..., Array], shape: tuple[int, ...], index: Index
    ) -> Array:
        """The parameter of the unique layer that `index` names, of the given shape."""
        if self.num_unique == 1:
            return self.param(name, init, shape)
        return from_bits(self.param(name, init, (self.num_unique, *shape))[index])

    def vector(self, name: str, init: Callable[..., Array], like: Array, index: Index) -> Array:
        """A parameter as long as the last axis of `like`, with axes of 1 before it."""
        weight = self.weight(name, init, like.shape[-1:], index)
        return weight.reshape((1,) * (like.ndim - 1) + weight.shape)

    @property
    def dtype(self) -> jnp.dtype:
        """The compute dtype."""
        return jnp.dtype(self.config.compute_dtype)

    @property
    def kernel_init(self) -> Callable[..., Array]:
        """The initializer of every kernel."""
        if self.config.kernel_initializer == 'fan_in':
            # The axis of unique layers is none of the inputs.
            return nn.initializers.lecun_normal(batch_axis=() if self.num_unique == 1 else (0,))
        return nn.initializers.truncated_normal(self.config.initializer_range)


class Dense(Weights):
    """A dense map of the last axis to `features`, with bias; in and out in the compute dtype."""

    features: int = 0

    @nn.compact
    def __call__(
        self, inputs: Float[Array, '... inputs'], index: Index = None
    ) -> Float[Array, '... features']:
        kernel = self.weight('kernel', self.kernel_init, (inputs.shape[-1], self.features), index)
        outputs = matmul.dense(inputs, kernel, self.dtype)
        outputs = outputs + self.vector('bias', nn.initializers.zeros, outputs, index)
        return checkpoint_name(outputs.astype(self.dtype), remat.DENSE_OUTPUT_NAME)


class LayerNorm(Weights):
    """Layer normalisation over the last axis, in float32 whatever comes in."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, '... width'], index: Index = None
    ) -> Float[Array, '... width']:
        scale = self.vector('scale', nn.initializers.ones, inputs, index)
        bias = self.vector('bias', nn.initializers.zeros, inputs, index)
        return normalize(inputs, self.config.layer_norm_eps) * scale + bias


class Dropout(nn.Module):
    """Dropout whose mask depends on each example's number, and not on the batch around it."""

    rate: float

    @nn.compact
    def __call__(
        self,
        inputs: Float[Array, 'batch *rest'],
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
    ) -> Float[Array, 'batch *rest']:
        if deterministic or self.rate == 0.0:
            return inputs
        return drop(inputs, self.rate, self.make_rng('dropout'), example_ids)
