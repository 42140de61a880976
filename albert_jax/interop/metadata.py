"""What travels with the weights: the model's config, its vocabulary, its head, its run."""

import base64
import dataclasses
from collections.abc import Mapping
from typing import Any

from albert_jax.data.added_tokens import AddedToken
from albert_jax.data.hub_tokenizer import AnyTokenizer, HubTokenizer
from albert_jax.data.normalization import Normalization
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop import old_names
from albert_jax.model.config import AlbertConfig
from albert_jax.model.decoder_config import DecoderConfig
from albert_jax.model.heads import Head


@dataclasses.dataclass(frozen=True)
class CheckpointMetadata:
    """What travels with the weights."""

    # The run's config, as it was given; empty where the weights come from elsewhere.
    run: dict[str, Any]
    model: AlbertConfig
    tokenizer: AnyTokenizer | None
    # What must be the same for a run to resume from here: section → field → value.
    resume_fingerprint: dict[str, Any]
    head: Head | None = None
    # What its best checkpoint is best in; empty where it was not trained here.
    best_metric: str = ''
    is_lower_better: bool = True
    # Of a model from text to text.
    decoder: DecoderConfig | None = None

    def to_json(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return {
            'run': self.run,
            'model': self.model.to_dict(),
            'resume_fingerprint': self.resume_fingerprint,
            'head': self.head and dataclasses.asdict(self.head),
            'best_metric': self.best_metric,
            'is_lower_better': self.is_lower_better,
            **({'decoder': self.decoder.to_dict()} if self.decoder else {}),
            **_tokenizer_to_json(self.tokenizer),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> 'CheckpointMetadata':
        """Reads what `to_json` wrote."""
        head, decoder = content.get('head'), content.get('decoder')
        best_metric, is_lower_better = read_selection(content)
        return cls(
            run=content['run'],
            # How attention was computed there is no matter here.
            model=AlbertConfig.from_dict({**content['model'], 'attention': 'auto'}),
            tokenizer=_tokenizer_from_json(content),
            resume_fingerprint=old_names.fingerprint_of(content),
            head=head and Head(head['kind'], tuple(head['labels'])),
            best_metric=best_metric,
            is_lower_better=is_lower_better,
            decoder=decoder and DecoderConfig.from_dict(decoder),
        )


def read_selection(content: Mapping[str, Any]) -> tuple[str, bool]:
    """What the best checkpoint is best in, and whether its lowest value is."""
    # Earlier versions kept both in the config of the run.
    loop = content['run'].get('loop', {})
    return tuple(
        content.get(name, loop.get(name, default))
        for name, default in (('best_metric', ''), ('is_lower_better', True))
    )


def _tokenizer_to_json(tokenizer: AnyTokenizer | None) -> dict[str, Any]:
    if tokenizer is None:
        return {}
    if isinstance(tokenizer, HubTokenizer):
        return {'tokenizer_json': tokenizer.definition}
    added = [dataclasses.asdict(token) for token in tokenizer.added_tokens]
    return {
        'normalization': dataclasses.asdict(tokenizer.normalization),
        'vocabulary': base64.b64encode(tokenizer.model).decode(),
        **({'added_tokens': added} if added else {}),
    }


def _tokenizer_from_json(content: Mapping[str, Any]) -> AnyTokenizer | None:
    if 'tokenizer_json' in content:
        return HubTokenizer(content['tokenizer_json'])
    if 'vocabulary' in content:
        vocabulary = base64.b64decode(content['vocabulary'])
        added = [AddedToken(**token) for token in content.get('added_tokens', ())]
        normalization = Normalization(**content['normalization'])
        return Tokenizer(vocabulary, normalization, added_tokens=added)
    return None
