"""The configuration of a model: a frozen, validated dataclass, and the sizes of Table 1."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from albert_jax.cli.settings import NonNegative, Positive, Probability, Settings, one_of

ACTIVATIONS = ('gelu_tanh', 'gelu_erf', 'relu')
SHARINGS = ('all', 'attention', 'ffn', 'none')
COMPUTE_DTYPES = ('float32', 'bfloat16')
REMATS = ('none', 'dense', 'attention', 'full')
ATTENTIONS = ('auto', 'einsum', 'chunked', 'fused', 'splash', 'cudnn')
_MAX_CUDNN_HEAD_SIZE = 128
POSITION_ENCODINGS = ('learned', 'rope')
NORM_PLACEMENTS = ('post', 'pre')
KERNEL_INITIALIZERS = ('normal', 'fan_in')
# What the sentence head learns: the order of two segments, whether they belong together, nothing.
SENTENCE_LOSSES = ('sop', 'nsp', 'none')


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlbertConfig(Settings):
    """The architecture of an ALBERT, and of BERT as its unshared, unfactorised member.

    Raises:
      UserError: if a value is impossible, alone or together with another.
    """

    SECTION: ClassVar[str] = 'model'

    vocab_size: Annotated[int, Positive, 'pieces'] = 30000
    embedding_size: Annotated[int, Positive, 'width of the embedding tables, E'] = 128
    hidden_size: Annotated[int, Positive, 'width of the encoder, H'] = 768
    num_hidden_layers: Annotated[int, Positive, 'layers'] = 12
    num_attention_heads: Annotated[int, Positive, 'heads; must divide hidden_size'] = 12
    intermediate_size: Annotated[int, Positive, 'inner width of the feed-forward'] = 3072
    hidden_act: Annotated[
        str,
        one_of(*ACTIVATIONS),
        "'gelu_tanh' is Google's (Hugging Face's 'gelu_new'), 'gelu_erf' Hugging Face's 'gelu'",
    ] = 'gelu_tanh'
    # As GEGLU of arXiv 2002.05202, where the activation is a GELU.
    is_gated: Annotated[
        bool,
        'a gate in the feed-forward, activation(x·W) · (x·V), two thirds as wide inside as '
        'intermediate_size says: as many parameters',
    ] = False
    norm_placement: Annotated[
        str,
        one_of(*NORM_PLACEMENTS),
        "'post': after each sublayer and residual; 'pre': before each sublayer, and after the last",
    ] = 'post'
    position_encoding: Annotated[
        str,
        one_of(*POSITION_ENCODINGS),
        "'learned': a table added to the embeddings; 'rope': rotations of queries and keys",
    ] = 'learned'
    max_position_embeddings: Annotated[
        int,
        Positive,
        "tokens of the longest sequence; with 'rope' a limit without weights, which may be raised",
    ] = 512
    type_vocab_size: Annotated[int, Positive, 'segments'] = 2
    hidden_dropout_prob: Annotated[float, Probability, 'of embeddings and sublayers'] = 0.0
    attention_probs_dropout_prob: Annotated[float, Probability, 'of attention'] = 0.0
    initializer_range: Annotated[
        float, Positive, 'standard deviation of the truncated normal of every weight'
    ] = 0.02
    embedding_initializer_range: Annotated[
        float | None, Positive, 'the same of the embedding tables; None: initializer_range'
    ] = None
    kernel_initializer: Annotated[
        str,
        one_of(*KERNEL_INITIALIZERS),
        "'normal': by initializer_range; 'fan_in': of variance 1 / inputs",
    ] = 'normal'
    layer_norm_eps: Annotated[float, Positive, 'added to the variance'] = 1e-12
    num_hidden_groups: Annotated[
        int, Positive, 'layer l has the weights of group int(l / num_hidden_layers · groups)'
    ] = 1
    inner_group_num: Annotated[
        int, Positive, 'blocks with weights of their own in each group, one after the other'
    ] = 1
    sharing: Annotated[
        str, one_of(*SHARINGS), 'sublayers that all layers of a group share (Table 4 of the paper)'
    ] = 'all'
    # What lies between sharing everything and nothing.
    num_loops: Annotated[
        int | None,
        Positive,
        'times that layers are gone through in turn, num_hidden_layers / num_loops of them with '
        'weights of their own; None: by groups',
    ] = None
    num_prelude_layers: Annotated[
        int, NonNegative, 'layers with weights of their own before num_hidden_layers'
    ] = 0
    num_coda_layers: Annotated[
        int, NonNegative, 'layers with weights of their own after num_hidden_layers'
    ] = 0
    depth_adapter_rank: Annotated[
        int, NonNegative, 'rank of what each depth adds to every shared kernel; 0: nothing'
    ] = 0
    depth_norms: Annotated[
        bool, 'norms, biases and scales of the residuals of its own at each depth'
    ] = False
    depth_embedding: Annotated[bool, 'a vector of each depth, added to what it is given'] = False
    use_embedding_projection: Annotated[
        bool, 'a dense map from E to H; without it the two must be equal'
    ] = True
    compute_dtype: Annotated[
        str,
        one_of(*COMPUTE_DTYPES),
        'of matrix products; parameters, norms, softmax and losses stay float32',
    ] = 'float32'
    # 'none' saves all but elementwise results and attention probabilities, 'dense' the results of
    # the dense maps and of the attention, 'attention' the latter alone, 'full' nothing.
    remat: Annotated[
        str, one_of(*REMATS), 'how much of a layer the backward pass computes again'
    ] = 'none'
    attention: Annotated[
        str,
        one_of(*ATTENTIONS),
        "'chunked' is for CPUs, 'fused' (up to 512 tokens) and 'splash' are kernels for TPUs, "
        "'cudnn' is one for NVIDIA GPUs in bfloat16; 'auto' chooses by the machine",
    ] = 'auto'

    def conflicts(self) -> Iterator[str]:
        """Of the sizes with one another."""
        if self.hidden_size % self.num_attention_heads:
            yield (
                f'model.hidden_size {self.hidden_size} does not divide into '
                f'{self.num_attention_heads} attention heads; choose num_attention_heads among '
                f'the divisors of hidden_size.'
            )
        if self.num_hidden_groups > self.num_hidden_layers:
            yield (
                f'model.num_hidden_groups {self.num_hidden_groups} exceeds num_hidden_layers '
                f'{self.num_hidden_layers}; some groups would never be used.'
            )
        yield from self._depth_conflicts()
        if self.position_encoding == 'rope' and self.head_size % 2:
            yield (
                f'model.position_encoding is rope, which rotates pairs of numbers, but heads are '
                f'of {self.head_size} (hidden_size {self.hidden_size} / num_attention_heads '
                f'{self.num_attention_heads}); choose both so that heads are of an even size.'
            )
        if not self.use_embedding_projection and self.embedding_size != self.hidden_size:
            yield (
                f'model.use_embedding_projection is False, which needs embedding_size '
                f'({self.embedding_size}) equal to hidden_size ({self.hidden_size}).'
            )
        if self.attention == 'cudnn' and self.cudnn_problem:
            yield (
                f'model.attention is cudnn, but {self.cudnn_problem}; use auto or einsum, or '
                f'change that.'
            )

    def _depth_conflicts(self) -> Iterator[str]:
        """Of what lies between sharing everything and nothing."""
        if self.num_loops is not None:
            groups = {'num_hidden_groups': 1, 'inner_group_num': 1}
            given = [f'{name} {getattr(self, name)}' for name in groups if getattr(self, name) > 1]
            given += ['sharing none'] if self.sharing == 'none' else []
            if given:
                yield (
                    f'model.num_loops is {self.num_loops}, and so is {" and ".join(given)}, which '
                    f'says in another way which layers share weights; leave one of them out.'
                )
            if self.num_hidden_layers % self.num_loops:
                yield (
                    f'model.num_loops {self.num_loops} does not divide num_hidden_layers '
                    f'{self.num_hidden_layers}, the layers of all loops together; choose a divisor.'
                )
        if self.sharing == 'none' and (self.num_prelude_layers or self.num_coda_layers):
            yield (
                'model.num_prelude_layers and num_coda_layers stand around layers that share '
                'weights, and sharing is none; add them to num_hidden_layers.'
            )
        of_depths = ('depth_adapter_rank', 'depth_norms', 'depth_embedding')
        given = [f'model.{name}' for name in of_depths if getattr(self, name)]
        if given and self.sharing == 'none':
            yield (
                f'{" and ".join(given)} tell{"s" * (len(given) == 1)} depths apart that share '
                f'weights, and sharing is none; leave one of them out.'
            )

    @property
    def resume_fingerprint(self) -> dict[str, Any]:
        """The fields that must agree for a run to resume.

        All but `remat` and `attention`, which change how the same numbers are computed.
        """
        fields = self.to_dict()
        return {name: fields[name] for name in fields if name not in ('remat', 'attention')}

    @property
    def plain(self) -> 'AlbertConfig':
        """The same model in float32, without rematerialization or platform-specific kernels."""
        return dataclasses.replace(self, attention='einsum', compute_dtype='float32', remat='none')

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def cudnn_problem(self) -> str:
        """Why cuDNN's attention cannot take this model on any machine; '' if it can."""
        if self.compute_dtype != 'bfloat16':
            return (
                f'that kernel needs model.compute_dtype bfloat16, and this is {self.compute_dtype}'
            )
        if self.head_size % 8 or self.head_size > _MAX_CUDNN_HEAD_SIZE:
            return (
                f'that kernel takes heads of a multiple of 8 up to {_MAX_CUDNN_HEAD_SIZE}, and '
                f'these are of {self.head_size} (hidden_size {self.hidden_size} / '
                f'num_attention_heads {self.num_attention_heads})'
            )
        return ''

    @property
    def ffn_size(self) -> int:
        """Inner width of the feed-forward.

        `intermediate_size`; two thirds of it where there is a gate, whose third kernel takes the
        rest, rounded to the matrix units of accelerators or, in small models, to vectors of CPUs.
        """
        if not self.is_gated:
            return self.intermediate_size
        multiple = 128 if self.intermediate_size >= 1024 else 8
        return max(1, round(self.intermediate_size * 2 / 3 / multiple)) * multiple

    @property
    def num_ffn_kernels(self) -> int:
        """Kernels of a feed-forward, each hidden_size × ffn_size or its transpose."""
        return 3 if self.is_gated else 2

    @property
    def core(self) -> 'AlbertConfig':
        """The model without prelude and coda."""
        return dataclasses.replace(self, num_prelude_layers=0, num_coda_layers=0)

    def unshared(self, num_layers: int) -> 'AlbertConfig':
        """A model of so many layers, each with weights of its own: a prelude or a coda."""
        return dataclasses.replace(
            self.core,
            num_hidden_layers=num_layers,
            sharing='none',
            num_hidden_groups=1,
            inner_group_num=1,
            num_loops=None,
            depth_adapter_rank=0,
            depth_norms=False,
            depth_embedding=False,
        )

    @property
    def in_groups(self) -> 'AlbertConfig':
        """The same model of the same parameters, with its loops said as one group if it can be."""
        if self.num_loops is None or self.sharing != 'all':
            return self
        return dataclasses.replace(
            self,
            num_loops=None,
            num_hidden_layers=self.num_loops,
            inner_group_num=self.num_hidden_layers // self.num_loops,
        )

    @property
    def num_layers(self) -> int:
        """All layers that a text goes through, prelude and coda included."""
        return self.num_prelude_layers + self.num_hidden_layers + self.num_coda_layers

    @property
    def num_depths(self) -> int:
        """Blocks that a text goes through between prelude and coda."""
        return self.num_hidden_layers * self.inner_group_num

    @property
    def num_blocks(self) -> int:
        """All blocks that a text goes through."""
        return self.num_prelude_layers + self.num_depths + self.num_coda_layers

    def shares(self, sublayer: str) -> bool:
        """Whether layers of a group or loop share a sublayer.

        Args:
          sublayer: 'attention' or 'ffn'.
        """
        return self.sharing in ('all', sublayer)

    @property
    def num_unique_attention_layers(self) -> int:
        """How many attention sublayers have parameters of their own."""
        return self._num_unique_layers(self.shares('attention'))

    @property
    def num_unique_ffn_layers(self) -> int:
        """How many feed-forward sublayers have parameters of their own."""
        return self._num_unique_layers(self.shares('ffn'))

    def _num_unique_layers(self, is_shared: bool) -> int:
        if not is_shared:
            return self.num_depths
        if self.num_loops is not None:
            return self.num_hidden_layers // self.num_loops
        return self.num_hidden_groups * self.inner_group_num

    def unique_layer_indices(self, num_unique: int) -> list[list[int]]:
        """The unique sublayer that each inner block uses (section 3.1 of the paper).

        Args:
          num_unique: `num_unique_attention_layers` or `num_unique_ffn_layers`.

        Returns:
          Indices below `num_unique`, of shape `[num_hidden_layers][inner_group_num]`.
        """
        if self.num_loops is not None:
            return [[layer % num_unique] for layer in range(self.num_hidden_layers)]
        num_sets = num_unique // self.inner_group_num
        return [
            [
                layer * num_sets // self.num_hidden_layers * self.inner_group_num + inner
                for inner in range(self.inner_group_num)
            ]
            for layer in range(self.num_hidden_layers)
        ]


def _bert(**fields: Any) -> AlbertConfig:
    return AlbertConfig(
        sharing='none',
        use_embedding_projection=False,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        **fields,
    )


# ALBERT v1 and v2 share an architecture; dropout here is v2's: none. BERT is the paper's baseline,
# with ALBERT's vocabulary (Table 1: 108 M and 334 M).
SIZES: dict[str, AlbertConfig] = {
    'albert_base': AlbertConfig(),
    'albert_large': AlbertConfig(
        hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096
    ),
    'albert_xlarge': AlbertConfig(
        hidden_size=2048, num_hidden_layers=24, num_attention_heads=16, intermediate_size=8192
    ),
    'albert_xxlarge': AlbertConfig(
        hidden_size=4096, num_hidden_layers=12, num_attention_heads=64, intermediate_size=16384
    ),
    'bert_base': _bert(embedding_size=768),
    'bert_large': _bert(
        embedding_size=1024,
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
    ),
}
