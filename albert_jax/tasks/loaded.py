"""A model for use in Python: what `albert_jax.load` gives, with a method for each use."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from albert_jax.cli.errors import UserError
from albert_jax.cli.phase import phase
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop import source as sources
from albert_jax.interop.native import Pretrained
from albert_jax.model.albert import PretrainingModel
from albert_jax.model.paths import num_params
from albert_jax.pretraining import fill_mask as masks
from albert_jax.pretraining.fill_mask import Candidate
from albert_jax.tasks.answering import Answerer
from albert_jax.tasks.batches import bucket_lengths
from albert_jax.tasks.given import check_is_text, checked_count, listed
from albert_jax.tasks.task import note_empty

_ENCODER_PARTS = ('embeddings', 'encoder')


class EncodedText(NamedTuple):
    """A text as the encoder has it.

    Attributes:
      pieces: of the vocabulary, [CLS] and [SEP] included.
      vectors: of the last layer, one for each piece.
    """

    pieces: tuple[str, ...]
    vectors: Float[np.ndarray, 'pieces hidden']


@dataclasses.dataclass(frozen=True, repr=False)
class LoadedModel(Pretrained):
    """A model with its weights and vocabulary, and what it can do.

    Its fields are those of Pretrained: `config`, `params`, `tokenizer`, `head`, … Every method
    compiles once for each length and size of batch that it meets.
    """

    # What it was loaded from.
    source: str = ''

    def __repr__(self) -> str:
        """Its kind, size, vocabulary, head and source in a line."""
        config = self.config
        is_bert = config.sharing == 'none' and not config.use_embedding_projection
        words = f'{self.tokenizer.vocab_size:,} pieces' if self.tokenizer else 'no vocabulary'
        head = 'pretraining heads'
        if self.head is not None:
            labels = f' ({", ".join(self.head.labels)})' if self.head.labels else ''
            head = f'{self.head.name} head{labels}'
        elif self.decoder is not None:
            head = 'a decoder'
        elif not {'mlm', 'sentence'} & self.own_params().keys():
            head = 'no head'
        step = f', step {self.step:,}' if self.step else ''
        return (
            f'<{"BERT" if is_bert else "ALBERT"} of {num_params(self.own_params()):,} parameters: '
            f'{config.num_hidden_layers} layers of {config.hidden_size}, {words}, {head}, '
            f'from {self.source or "memory"}{step}>'
        )

    def fill_mask(self, text: str, top: int = 5) -> list[list[Candidate]]:
        """The likeliest pieces for each `[MASK]` of a text.

        Args:
          text: with one `[MASK]` or more.
          top: how many for each.

        Returns:
          For each `[MASK]` in order, candidates with `text`, `probability` and `piece`, best first.

        Raises:
          UserError: if the model has no vocabulary or masked-LM head, or the text is too long or
            has no `[MASK]`.
        """
        check_is_text(text, 'text')
        return masks.fill_mask(self, text, checked_count(top, 'top'))

    def predict(
        self, texts: Iterable[str | Mapping[str, Any]], batch_size: int = 32
    ) -> list[dict[str, Any]]:
        """The answers of a fine-tuned model.

        Args:
          texts: each a text, or a mapping of the task's fields, such as `text` and `text_pair`, or
            `question` and `passage`.
          batch_size: texts at once.

        Returns:
          For each text what `python -m albert_jax.predict` writes, as `prediction` and
          `probabilities` of a classifier.

        Raises:
          UserError: if the model has no head or vocabulary, or a text is not what its task takes.
        """
        given = listed(texts, 'texts')
        answerer = self._answerer(checked_count(batch_size, 'batch_size'))
        examples = [
            answerer.example(x, f'text {number}', str(number)) for number, x in enumerate(given)
        ]
        note_empty(answerer.task, examples, 'texts')
        answers = answerer.evaluate(examples)[1] if examples else []
        return [{name: value for name, value in a.items() if name != 'id'} for a in answers]

    def encode(self, texts: Iterable[str], batch_size: int = 32) -> list[EncodedText]:
        """The vectors of every piece of some texts: the encoder's last layer, in float32.

        Args:
          texts: any.
          batch_size: texts at once.

        Returns:
          For each text its pieces and their vectors.

        Raises:
          UserError: if the model has no vocabulary, or a text is longer than its positions.
        """
        rows, batch_size = self._rows(texts), checked_count(batch_size, 'batch_size')
        names = self._words.pieces
        found: list[EncodedText | None] = [None] * len(rows)
        for numbers, hidden in self._hidden(rows, batch_size):
            for number, vectors in zip(numbers, hidden, strict=False):
                pieces = tuple(str(names[index]) for index in rows[number])
                found[number] = EncodedText(pieces, vectors[: len(pieces)])
        return [text for text in found if text is not None]

    def embed(
        self, texts: Iterable[str], batch_size: int = 32
    ) -> Float[np.ndarray, 'texts hidden']:
        """A vector for each text: the mean of its pieces' vectors, [CLS] and [SEP] included.

        Args:
          texts: any.
          batch_size: texts at once.

        Raises:
          UserError: as `encode`.
        """
        rows, batch_size = self._rows(texts), checked_count(batch_size, 'batch_size')
        vectors = np.zeros((len(rows), self.config.hidden_size), np.float32)
        for numbers, hidden in self._hidden(rows, batch_size):
            for number, of_text in zip(numbers, hidden, strict=False):
                vectors[number] = of_text[: len(rows[number])].mean(0)
        return vectors

    @property
    def _words(self) -> AnyTokenizer:
        if self.tokenizer is None:
            raise UserError(f'{self.source or "The model"} has no vocabulary.')
        return self.tokenizer

    def _answerer(self, batch_size: int) -> Answerer:
        # Kept, so that its programs are.
        kept: dict[int, Answerer] = self.__dict__.setdefault('_answerers', {})
        if batch_size not in kept:
            kept[batch_size] = Answerer(self, batch_size=batch_size)
        return kept[batch_size]

    @functools.cached_property
    def _encoder(self) -> Any:
        model = PretrainingModel(self.config)
        params = jax.device_put({name: self.params[name] for name in _ENCODER_PARTS})

        @jax.jit
        def last_layer(params: Any, input_ids: Any, attention_mask: Any) -> Any:
            encoded: Any = model.apply(
                {'params': params}, input_ids, attention_mask, jnp.zeros_like(input_ids),
                use_pooler=False, method='encode',
            )  # fmt: skip
            return encoded.last_hidden_state.astype(jnp.float32)

        return functools.partial(last_layer, params)

    def _rows(self, texts: Iterable[str]) -> list[list[int]]:
        """The ids of each text, with [CLS] and [SEP]."""
        given = listed(texts, 'texts')
        words, longest = self._words, self.config.max_position_embeddings
        for number, text in enumerate(given):
            check_is_text(text, f'text {number}')
        rows = [[words.cls_id, *ids, words.sep_id] for ids in words.encode(given)]
        for number, row in enumerate(rows):
            if len(row) > longest:
                raise UserError(
                    f'text {number} has {len(row)} pieces; the model has {longest} positions: '
                    f'shorten it.'
                )
        return rows

    def _hidden(
        self, rows: Sequence[Sequence[int]], batch_size: int
    ) -> Iterator[tuple[Int[np.ndarray, 'some'], Float[np.ndarray, 'batch length hidden']]]:
        """The last layer, a batch of like lengths at a time, and which texts are in it."""
        lengths = bucket_lengths(self.config.max_position_embeddings)
        order = np.argsort([len(row) for row in rows], kind='stable')
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            length = next(x for x in lengths if x >= len(rows[numbers[-1]]))
            input_ids = np.full((batch_size, length), self._words.pad_id, np.int32)
            attention_mask = np.zeros_like(input_ids)
            for place, number in enumerate(numbers):
                input_ids[place, : len(rows[number])] = rows[number]
                attention_mask[place, : len(rows[number])] = 1
            # A row without a text sees itself.
            attention_mask[len(numbers) :, 0] = 1
            with phase('Compiling, or computing a large batch …'):
                hidden = np.asarray(self._encoder(input_ids, attention_mask))
            yield numbers, hidden


def load(source: str | Path, vocabulary: str | Path | None = None) -> LoadedModel:
    """A model, whoever wrote it, ready to use.

    Args:
      source: a run (its --workdir) or checkpoint of albert_jax, a directory of Hugging Face
        (ALBERT or BERT), a TensorFlow checkpoint of google-research/albert or its archive, a
        TF-Hub module, or a name on the Hugging Face Hub.
      vocabulary: a file to use in place of the source's own.

    Returns:
      The model. Of a run it is the best checkpoint. Parts that the source lacks are drawn from a
      fixed seed and named in `initialised`; what a person should know goes to standard error.
      What JAX compiles in this process from now on is kept in the user's cache for the next one,
      unless JAX_COMPILATION_CACHE_DIR says where, or JAX_ENABLE_COMPILATION_CACHE is false.

    Raises:
      UserError: if it is none of these, or cannot be read whole.
    """
    loaded = sources.load(source, vocabulary)
    fields = {field.name: getattr(loaded, field.name) for field in dataclasses.fields(loaded)}
    return LoadedModel(**fields, source=str(source))
