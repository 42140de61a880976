"""What an ALBERT is: one frozen, validated dataclass, and the named sizes (the paper's Table 1)."""

import dataclasses
from typing import Any, ClassVar

from albert_jax.errors import UserError
from albert_jax.settings import Settings

ACTIVATIONS = ('gelu_tanh', 'gelu_erf', 'relu')
SHARINGS = ('all', 'attention', 'ffn', 'none')
COMPUTE_DTYPES = ('float32', 'bfloat16')
REMATS = ('none', 'dense', 'attention', 'full')
ATTENTIONS = ('auto', 'einsum', 'chunked', 'splash')
# What the sentence head learns: the order of two segments, whether they belong together, nothing.
SENTENCE_LOSSES = ('sop', 'nsp', 'none')


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlbertConfig(Settings):
    """The architecture of an ALBERT, and of BERT as its unshared, unfactorised member.

    Raises:
      UserError: if a value is impossible, alone or together with another.
    """

    SECTION: ClassVar[str] = 'model'

    vocab_size: int = 30000
    embedding_size: int = 128
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    # 'gelu_tanh' is Google's (and Hugging Face's 'gelu_new'); 'gelu_erf' is Hugging Face's 'gelu'.
    hidden_act: str = 'gelu_tanh'
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.0
    attention_probs_dropout_prob: float = 0.0
    # Standard deviation of the truncated normal that every weight is drawn from.
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    # Layer l uses the weights of group int(l / num_hidden_layers * num_hidden_groups).
    num_hidden_groups: int = 1
    # Blocks with weights of their own inside each group, applied one after the other in a layer.
    inner_group_num: int = 1
    # Which sublayers keep one set of weights for all layers of a group (Table 4 of the paper).
    sharing: str = 'all'
    # The dense map from embedding_size to hidden_size. Without it the two sizes must be equal.
    use_embedding_projection: bool = True
    # Type of the matrix products; parameters, norms, softmax and losses stay float32.
    compute_dtype: str = 'float32'
    # What the backward pass keeps of a layer; the rest it computes again. 'none' keeps all but what
    # is elementwise and the attention's probabilities, 'dense' the results of the dense maps and of
    # the attention, 'attention' the latter alone, 'full' nothing.
    remat: str = 'none'
    # How attention is computed: 'einsum', 'chunked' (for CPUs) or 'splash' (a kernel for TPUs);
    # 'auto' chooses by the machine.
    attention: str = 'auto'

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_positive(
            'vocab_size', 'embedding_size', 'hidden_size', 'num_hidden_layers',
            'num_attention_heads', 'intermediate_size', 'max_position_embeddings',
            'type_vocab_size', 'num_hidden_groups', 'inner_group_num', 'layer_norm_eps',
            'initializer_range',
        )  # fmt: skip
        self.check_probability('hidden_dropout_prob', 'attention_probs_dropout_prob')
        self.check_choice('hidden_act', ACTIVATIONS)
        self.check_choice('sharing', SHARINGS)
        self.check_choice('compute_dtype', COMPUTE_DTYPES)
        self.check_choice('remat', REMATS)
        self.check_choice('attention', ATTENTIONS)
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f'model.hidden_size {self.hidden_size} does not divide into '
                f'{self.num_attention_heads} attention heads; choose num_attention_heads among '
                f'the divisors of hidden_size.'
            )
        if self.num_hidden_groups > self.num_hidden_layers:
            raise UserError(
                f'model.num_hidden_groups {self.num_hidden_groups} exceeds num_hidden_layers '
                f'{self.num_hidden_layers}; some groups would never be used.'
            )
        if not self.use_embedding_projection and self.embedding_size != self.hidden_size:
            raise UserError(
                f'model.use_embedding_projection is False, which needs embedding_size '
                f'({self.embedding_size}) equal to hidden_size ({self.hidden_size}).'
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What a run may not change on its way: all but how the same numbers are computed."""
        fields = self.to_dict()
        return {name: fields[name] for name in fields if name not in ('remat', 'attention')}

    @property
    def plain(self) -> 'AlbertConfig':
        """The same model in float32 and by products that every platform has."""
        return dataclasses.replace(self, attention='einsum', compute_dtype='float32', remat='none')

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_attention_copies(self) -> int:
        """How many different attention sublayers there are."""
        return self._num_copies(self.sharing in ('all', 'attention'))

    @property
    def num_ffn_copies(self) -> int:
        """How many different feed-forward sublayers there are."""
        return self._num_copies(self.sharing in ('all', 'ffn'))

    def _num_copies(self, is_shared: bool) -> int:
        num_layers = self.num_hidden_groups if is_shared else self.num_hidden_layers
        return num_layers * self.inner_group_num

    def copy_indices(self, num_copies: int) -> list[list[int]]:
        """The copy that each inner block uses, `[num_hidden_layers][inner_group_num]`.

        Args:
          num_copies: `num_attention_copies` or `num_ffn_copies`.
        """
        num_sets = num_copies // self.inner_group_num
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
