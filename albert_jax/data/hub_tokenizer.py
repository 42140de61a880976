"""Vocabularies of other people, WordPiece above all, through Hugging Face's `tokenizers`."""

import functools
import hashlib
import json
from collections.abc import Sequence

from albert_jax.cli.errors import UserError, first_line
from albert_jax.cli.json_text import check_texts
from albert_jax.data.tokenizer import Encoding, Tokenizer

_SPECIAL = {
    'pad_id': ('<pad>', '[PAD]'),
    'unk_id': ('<unk>', '[UNK]'),
    'cls_id': ('[CLS]',),
    'sep_id': ('[SEP]',),
    'mask_id': ('[MASK]',),
}
_EXTRA = (
    "this vocabulary needs the extra 'huggingface': install it with "
    "pip install -e '.[huggingface]'."
)


class HubTokenizer:
    """Text to piece ids and back by a `tokenizer.json`, with the methods of `Tokenizer`.

    Args:
      definition: the content of a `tokenizer.json`.
      origin: what to call it in messages.

    Raises:
      UserError: if it is no tokenizer, or lacks one of the special pieces.
    """

    pad_id: int
    unk_id: int
    cls_id: int
    sep_id: int
    mask_id: int

    def __init__(self, definition: str, origin: str = 'the vocabulary') -> None:
        try:
            from tokenizers import Tokenizer as Backend
        except ImportError as error:
            raise UserError(f'{origin}: {_EXTRA}') from error
        self.definition = definition
        try:
            self._backend = Backend.from_str(definition)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # plain Exceptions, and panics of Rust that are none
            raise UserError(f'{origin} is not a tokenizer.json ({first_line(error)}).') from error
        self._backend.no_padding()
        self._backend.no_truncation()
        # A vocabulary may have holes.
        by_id = {index: piece for piece, index in self._backend.get_vocab().items()}
        self.pieces: list[str] = [by_id.get(index, '') for index in range(max(by_id, default=0))]
        self.pieces.append(by_id.get(len(self.pieces), ''))
        self.vocab_size = len(self.pieces)
        own = self._backend.get_vocab(with_added_tokens=False)
        # Pieces from here on are added tokens.
        self.num_model_pieces = max(own.values(), default=-1) + 1
        for name, candidates in _SPECIAL.items():
            candidate_ids = [self._backend.token_to_id(piece) for piece in candidates]
            ids = [index for index in candidate_ids if index is not None]
            if not ids:
                raise UserError(f'{origin} has no piece {" or ".join(candidates)}.')
            setattr(self, name, ids[0])

    @classmethod
    def from_wordpiece(
        cls,
        vocabulary: str,
        *,
        keep_case: bool = False,
        keep_accents: bool | None = None,
        splits_chinese: bool = True,
        origin: str = 'the vocabulary',
    ) -> 'HubTokenizer':
        """BERT's WordPiece from its `vocab.txt`, a piece in each line.

        Args:
          vocabulary: the file's content.
          keep_case: do not lower.
          keep_accents: keep combining marks; None for BERT's rule, which is as with the case.
          splits_chinese: every Chinese character is a word.
          origin: what to call it in messages.

        Raises:
          UserError: if the pieces of BERT are not all there.
        """
        return cls(_wordpiece(vocabulary, keep_case, keep_accents, splits_chinese, origin), origin)

    @functools.cached_property
    def sha256(self) -> str:
        """Digest of the definition: what makes two vocabularies the same."""
        return hashlib.sha256(self.definition.encode()).hexdigest()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The piece ids of each text, without special pieces.

        Raises:
          UserError: if a text has half a surrogate pair.
        """
        return [encoding.ids for encoding in self.encode_with_offsets(texts)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding]:
        """The same ids, each with the slice of its original text that it stands for."""
        try:
            encoded = self._backend.encode_batch(list(texts), add_special_tokens=False)
        except TypeError:
            check_texts(texts)
            raise
        return [Encoding(one.ids, one.offsets) for one in encoded]

    def encode_with_masks(self, text: str) -> list[int]:
        """The ids of a text in which `[MASK]` stands for the mask piece."""
        ids: list[int] = []
        for index, part in enumerate(text.split('[MASK]')):
            ids.extend([self.mask_id] * (index > 0) + self.encode([part])[0])
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text."""
        return self._backend.decode([int(index) for index in ids], skip_special_tokens=False)


AnyTokenizer = Tokenizer | HubTokenizer


def _wordpiece(
    vocabulary: str, keep_case: bool, keep_accents: bool | None, splits_chinese: bool, origin: str
) -> str:
    try:
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
    except ImportError as error:
        raise UserError(f'{origin}: {_EXTRA}') from error
    # Not splitlines: a piece may be a line separator of Unicode's.
    pieces = [line.removesuffix('\r') for line in vocabulary.split('\n')]
    while pieces and not pieces[-1]:
        pieces.pop()
    ids = {piece: index for index, piece in enumerate(pieces)}
    missing = [piece for piece in ('[UNK]', '[CLS]', '[SEP]') if piece not in ids]
    if missing:
        raise UserError(f'{origin} has no piece {missing[0]}; it is not a WordPiece vocabulary.')
    backend = Backend(models.WordPiece(ids, unk_token='[UNK]'))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=splits_chinese,
        strip_accents=None if keep_accents is None else not keep_accents,
        lowercase=not keep_case,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single='[CLS]:0 $A:0 [SEP]:0',
        pair='[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1',
        special_tokens=[('[CLS]', ids['[CLS]']), ('[SEP]', ids['[SEP]'])],
    )
    special = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
    backend.add_special_tokens([piece for piece in special if piece in ids])
    return json.dumps(json.loads(backend.to_str()), ensure_ascii=False)
