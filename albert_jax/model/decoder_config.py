"""The configuration of a decoder: how it relates to the encoder of its model."""

import dataclasses
from typing import Annotated, ClassVar

from albert_jax.cli.settings import NonNegative, Settings, one_of
from albert_jax.model.config import AlbertConfig

DECODER_SHARINGS = ('encoder', 'copy', 'random')
CROSS_ATTENTIONS = ('shared', 'per_layer')


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig(Settings):
    """A decoder of the encoder's sizes and recipe (ALBERTShare, after arXiv 1907.12461).

    Raises:
      UserError: if a value is impossible.
    """

    SECTION: ClassVar[str] = 'decoder'

    decoder_sharing: Annotated[
        str,
        one_of(*DECODER_SHARINGS),
        "self-attention and feed-forward: 'encoder': the encoder's own weights; 'copy': weights of "
        "their own that start from the encoder's; 'random': weights of their own",
    ] = 'encoder'
    num_decoder_layers: Annotated[int, NonNegative, 'layers; 0: as many as the encoder'] = 0
    cross_attention: Annotated[
        str,
        one_of(*CROSS_ATTENTIONS),
        "'shared': one for all layers; 'per_layer': weights of its own in every layer",
    ] = 'shared'

    def num_layers(self, config: AlbertConfig) -> int:
        """Layers of the decoder."""
        return self.num_decoder_layers or config.num_hidden_layers

    def num_cross_attentions(self, config: AlbertConfig) -> int:
        """How many cross-attentions have weights of their own."""
        if self.cross_attention == 'shared':
            return 1
        return self.num_layers(config) * config.inner_group_num

    def num_unique_layers(self, config: AlbertConfig, sublayer: str) -> int:
        """How many self-attentions or feed-forwards have weights of their own.

        Args:
          config: of the encoder.
          sublayer: 'attention' or 'ffn'.
        """
        if self.decoder_sharing == 'encoder':
            return _num_unique_encoder_layers(config, sublayer)
        num_layers = self.num_layers(config)
        num_sets = num_layers
        if config.sharing in ('all', sublayer):
            num_sets = min(config.num_hidden_groups, num_layers)
        return num_sets * config.inner_group_num

    def unique_layer_indices(self, config: AlbertConfig, sublayer: str) -> list[list[int]]:
        """The unique self-attention or feed-forward that each inner block uses.

        Where the decoder is shallower or deeper than the weights that it uses, its layers are
        spread evenly over them, as the encoder's are over its groups.

        Returns:
          Indices below `num_unique_layers`, of shape `[num_layers][inner_group_num]`.
        """
        num_layers = self.num_layers(config)
        return _spread(num_layers, self.num_unique_layers(config, sublayer), config.inner_group_num)

    def copied_layers(self, config: AlbertConfig, sublayer: str) -> list[int]:
        """The unique layer of the encoder that each one of a decoder's own starts from."""
        num_encoder = _num_unique_encoder_layers(config, sublayer)
        num_sets = self.num_unique_layers(config, sublayer) // config.inner_group_num
        spread = _spread(num_sets, num_encoder, config.inner_group_num)
        return [layer for block in spread for layer in block]


def _num_unique_encoder_layers(config: AlbertConfig, sublayer: str) -> int:
    if sublayer == 'attention':
        return config.num_unique_attention_layers
    return config.num_unique_ffn_layers


def _spread(num_layers: int, num_unique: int, num_inner: int) -> list[list[int]]:
    num_sets = num_unique // num_inner
    return [
        [layer * num_sets // num_layers * num_inner + inner for inner in range(num_inner)]
        for layer in range(num_layers)
    ]
