"""What travels with the weights: the model's config, its vocabulary, its head, its run."""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

from albert_jax.config import AlbertConfig
from albert_jax.data.hub_tokenizer import AnyTokenizer, HubTokenizer
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer

# The first four are also Hugging Face's.
HEAD_KINDS = (
    'sequence_classification',
    'token_classification',
    'question_answering',
    'multiple_choice',
    # The end conditioned on the start, and answerability (XLNet): SQuAD 2.0.
    'conditional_question_answering',
)


@dataclasses.dataclass(frozen=True)
class Head:
    """What a fine-tuned model answers; its weights are under `head` in the parameters."""

    # One of HEAD_KINDS.
    kind: str
    # Names of the outputs, in order.
    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class About:
    """What travels with the weights."""

    # The run's config, as it was given; empty where the weights come from elsewhere.
    run: dict[str, Any]
    model: AlbertConfig
    tokenizer: AnyTokenizer | None
    # What must be the same for a run to go on from here: section → field → value.
    identity: dict[str, Any]
    head: Head | None = None

    def to_json(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return {
            'run': self.run,
            'model': self.model.to_dict(),
            'identity': self.identity,
            'head': self.head and dataclasses.asdict(self.head),
            **_tokenizer_to_json(self.tokenizer),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> 'About':
        """Reads what `to_json` wrote."""
        head = content.get('head')
        return cls(
            run=content['run'],
            # How attention was computed there is no matter here.
            model=AlbertConfig.from_dict({**content['model'], 'attention': 'auto'}),
            tokenizer=_tokenizer_from_json(content),
            identity=content['identity'],
            head=head and Head(head['kind'], tuple(head['labels'])),
        )


def _tokenizer_to_json(tokenizer: AnyTokenizer | None) -> dict[str, Any]:
    if tokenizer is None:
        return {}
    if isinstance(tokenizer, HubTokenizer):
        return {'tokenizer_json': tokenizer.definition}
    return {
        'normalization': dataclasses.asdict(tokenizer.normalization),
        'vocabulary': base64.b64encode(tokenizer.model).decode(),
    }


def _tokenizer_from_json(content: Mapping[str, Any]) -> AnyTokenizer | None:
    if 'tokenizer_json' in content:
        return HubTokenizer(content['tokenizer_json'])
    if 'vocabulary' in content:
        vocabulary = base64.b64decode(content['vocabulary'])
        return Tokenizer(vocabulary, Normalization(**content['normalization']))
    return None
