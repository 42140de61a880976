"""What every part of the model is made of: the weights of layers, dense maps, norms, dropout."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from albert_jax.model import matmul, remat
from albert_jax.model.config import AlbertConfig
from albert_jax.model.dropout import drop
from albert_jax.model.elementwise import layer_norm
from albert_jax.model.rounding import from_bits, rounded


class Place(NamedTuple):
    """Where in the model a module is used."""

    # Of the unique layer whose parameters are used.
    layer: Int[Array, '']
    # Of the block, counted from the first one that shares weights; None where that says nothing.
    depth: Int[Array, ''] | None = None


class Weights(nn.Module):
    """Base of modules that hold the parameters of `num_unique` layers, and use those of one.

    Where they are used at `num_depths` depths, the config may give each depth some of its own
    beside the shared ones; 0 for weights that are no shared layer's. Parameters in bfloat16 may
    come as their bits (`rounding.round_kernels`).
    """

    config: AlbertConfig
    num_unique: int = 1
    num_depths: int = 0

    def weight(
        self, name: str, init: Callable[..., Array], shape: tuple[int, ...], place: Place | None
    ) -> Array:
        """The parameter of the unique layer at a place, of the given shape."""
        if self.num_unique == 1:
            return self.param(name, init, shape)
        assert place is not None
        return from_bits(self.param(name, init, (self.num_unique, *shape))[place.layer])

    def depth_weight(
        self, name: str, init: Callable[..., Array], shape: tuple[int, ...], place: Place | None
    ) -> Array:
        """The parameter of the depth of a place, of the given shape."""
        assert place is not None and place.depth is not None
        return self.param(name, init, (self.num_depths, *shape))[place.depth]

    def kernel(self, shape: tuple[int, int], place: Place | None) -> Float[Array, 'inputs outputs']:
        """The kernel at a place: the shared one, and what its depth adds in a product of two."""
        shared = self.weight('kernel', self.kernel_init, shape, place)
        rank = self.config.depth_adapter_rank
        if not rank or not self.is_shared:
            return shared
        init = nn.initializers.lecun_normal(batch_axis=(0,))
        down = self.depth_weight('adapter_down', init, (shape[0], rank), place)
        up = self.depth_weight('adapter_up', nn.initializers.zeros, (rank, shape[1]), place)
        # As the product of two matrices it is much cheaper than as two maps of every token.
        return rounded(shared, self.dtype) + jnp.matmul(down, up, precision='float32')

    def vector(
        self, name: str, init: Callable[..., Array], size: int, place: Place | None
    ) -> Float[Array, 'size']:
        """A norm's parameter or a bias at a place: the shared one, or one of its depth."""
        if self.config.depth_norms and self.is_shared:
            return self.depth_weight(name, init, (size,), place)
        return self.weight(name, init, (size,), place)

    @property
    def is_shared(self) -> bool:
        """Whether these are the weights of layers that are shared."""
        return self.num_depths > 0

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


class DenseWeights(Weights):
    """The kernel and the bias of a dense map to `features`."""

    features: int = 0

    @nn.compact
    def __call__(
        self, num_inputs: int, place: Place | None = None
    ) -> tuple[Float[Array, 'inputs features'], Float[Array, 'features']]:
        kernel = self.kernel((num_inputs, self.features), place)
        return kernel, self.vector('bias', nn.initializers.zeros, self.features, place)


class Dense(Weights):
    """A dense map of the last axis to `features`, with bias; in and out in the compute dtype."""

    features: int = 0

    @nn.compact
    def __call__(
        self, inputs: Float[Array, '... inputs'], place: Place | None = None
    ) -> Float[Array, '... features']:
        kernel = self.kernel((inputs.shape[-1], self.features), place)
        bias = self.vector('bias', nn.initializers.zeros, self.features, place)
        outputs = matmul.dense_with_bias(inputs, kernel, bias, self.dtype)
        return checkpoint_name(outputs, remat.DENSE_OUTPUT_NAME)


class LayerNorm(Weights):
    """Layer normalisation over the last axis, in float32 whatever comes in."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, '... width'], place: Place | None = None
    ) -> Float[Array, '... width']:
        scale = self.vector('scale', nn.initializers.ones, inputs.shape[-1], place)
        bias = self.vector('bias', nn.initializers.zeros, inputs.shape[-1], place)
        axes = (1,) * (inputs.ndim - 1)
        scale, bias = scale.reshape(*axes, -1), bias.reshape(*axes, -1)
        return layer_norm(inputs, scale, bias, self.config.layer_norm_eps)


class ResidualScale(Weights):
    """Factors of what a sublayer adds, of each depth's own; 1 at the start.

    As LayerScale (arXiv 2103.17239), but for its start.
    """

    @nn.compact
    def __call__(
        self, inputs: Float[Array, 'batch length hidden'], place: Place
    ) -> Float[Array, 'batch length hidden']:
        scale = self.depth_weight('scale', nn.initializers.ones, inputs.shape[-1:], place)
        scaled = inputs.astype(jnp.float32) * scale.reshape(1, 1, -1)
        return scaled.astype(inputs.dtype)


class DepthEmbedding(Weights):
    """A vector of each depth; 0 at the start."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, 'batch length hidden'], place: Place
    ) -> Float[Array, 'batch length hidden']:
        vector = self.depth_weight('embedding', nn.initializers.zeros, inputs.shape[-1:], place)
        moved = inputs.astype(jnp.float32) + vector.reshape(1, 1, -1)
        return moved.astype(inputs.dtype)


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
