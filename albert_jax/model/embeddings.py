"""The embeddings of pieces, and the masked-LM head, whose output map is their table."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from albert_jax.model import matmul
from albert_jax.model.elementwise import activate
from albert_jax.model.modules import Dense, Dropout, LayerNorm, Weights


class Embeddings(Weights):
    """Word, position and segment embeddings of width E, normed, then projected to H.

    Where positions are rotations of queries and keys, there is no table of them.
    """

    def setup(self) -> None:
        config = self.config
        table = functools.partial(
            nn.Embed,
            features=config.embedding_size,
            embedding_init=nn.initializers.truncated_normal(
                config.embedding_initializer_range or config.initializer_range
            ),
        )
        self.word = table(config.vocab_size)
        if config.position_encoding == 'learned':
            self.position = table(config.max_position_embeddings)
        self.token_type = table(config.type_vocab_size)
        self.layer_norm = LayerNorm(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        if config.use_embedding_projection:
            self.projection = Dense(config, features=config.hidden_size)

    def __call__(
        self,
        input_ids: Int[Array, 'batch length'],
        token_type_ids: Int[Array, 'batch length'],
        example_ids: Int[Array, 'batch'],
        deterministic: bool,
        perturbation: Float[Array, 'batch length embedding'] | None = None,
        positions: Int[Array, 'length'] | None = None,
    ) -> Float[Array, 'batch length hidden']:
        # 0, 1, … unless a decoder is somewhere in the middle of its text.
        positions = jnp.arange(input_ids.shape[1]) if positions is None else positions
        # Looked up in float32, so that the table's gradient is summed in float32 too.
        word_embeddings = self.word(input_ids)
        if perturbation is not None:
            word_embeddings = word_embeddings + perturbation
        embedded = word_embeddings
        if self.config.position_encoding == 'learned':
            embedded = embedded + self.position(positions)[None]
        embedded = self.layer_norm(embedded + self.token_type(token_type_ids))
        embedded = self.dropout(embedded, example_ids, deterministic)
        if self.config.use_embedding_projection:
            embedded = self.projection(embedded)
        return embedded.astype(self.dtype)

    def decode(
        self, hidden: Float[Array, 'batch positions embedding']
    ) -> Float[Array, 'batch positions vocab']:
        """Logits of every piece of the vocabulary: the product with the (tied) word table."""
        batch, positions, width = hidden.shape
        rows = hidden.reshape(batch * positions, width)
        logits = matmul.matmul_transposed(rows, self.word.embedding, self.dtype)
        return logits.reshape(batch, positions, self.config.vocab_size)


class MaskedLanguageHead(Weights):
    """Dense H → E, activation, norm, and the tied word table with a bias."""

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, 'batch positions hidden'],
        decode: Callable[[Array], Float[Array, 'batch positions vocab']],
    ) -> Float[Array, 'batch positions vocab']:
        config = self.config
        transformed = Dense(config, features=config.embedding_size, name='transform')(hidden)
        transformed = activate(transformed, config.hidden_act)
        transformed = LayerNorm(config, name='layer_norm')(transformed)
        logits = decode(transformed)
        bias = self.vector('bias', nn.initializers.zeros, config.vocab_size, None)
        return logits + bias.reshape(1, 1, -1)
