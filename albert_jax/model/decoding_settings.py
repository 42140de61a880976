"""How a decoder writes: greedy, by beam search, or by sampling."""

import dataclasses
from collections.abc import Iterator
from typing import Annotated, ClassVar

from albert_jax.cli.settings import Bound, NonNegative, Settings, at_least


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingSettings(Settings):
    """How a decoder chooses the pieces of its text.

    Without a temperature it takes the likeliest piece, or with several beams the text of the best
    score that beam search finds; above temperature 0 it samples.

    Raises:
      UserError: if a value is impossible, alone or together with another.
    """

    SECTION: ClassVar[str] = 'decoding'

    num_beams: Annotated[int, at_least(1), 'beams of the search; 1: greedy'] = 1
    num_return_sequences: Annotated[
        int,
        Bound('from 1 to 1024', lambda value: 1 <= value <= 1024),
        'texts for each source: the best of the beams, or samples',
    ] = 1
    length_penalty: Annotated[
        float,
        Bound('from -10 to 10', lambda value: -10 <= value <= 10),
        'a text has the score log p / pieces ** length_penalty; above 0 prefers longer ones',
    ] = 1.0
    # Bounds within which float32 and int32 compute what the value says.
    temperature: Annotated[
        float,
        Bound('0, or from 1e-6 to 1e6', lambda value: value == 0 or 1e-6 <= value <= 1e6),
        'of the sampling, which logits are divided by; 0: no sampling',
    ] = 0.0
    top_k: Annotated[
        int,
        Bound('from 0 to 2**31 - 1', lambda value: 0 <= value < 2**31),
        'sampling: among the likeliest only; 0: among all',
    ] = 0
    top_p: Annotated[
        float,
        Bound('from 1e-6 to 1', lambda value: 1e-6 <= value <= 1),
        'sampling: among the fewest likeliest pieces whose probabilities sum to this',
    ] = 1.0
    seed: Annotated[int, NonNegative, 'of the sampling'] = 0

    def conflicts(self) -> Iterator[str]:
        """Of the ways to write with one another."""
        if self.seed >= 2**32:
            yield f'decoding.seed is {self.seed}; it must be below 2**32.'
        if self.temperature:
            if self.num_beams > 1:
                yield (
                    f'decoding.num_beams is {self.num_beams} and decoding.temperature '
                    f'{self.temperature}; samples have no beams: set num_beams to 1, or '
                    f'temperature to 0.'
                )
            return
        for name, off in (('top_k', 0), ('top_p', 1.0)):
            if getattr(self, name) != off:
                yield (
                    f'decoding.{name} is {getattr(self, name)}, but at temperature 0 nothing is '
                    f'sampled; set decoding.temperature above 0.'
                )
        if self.num_return_sequences > self.num_beams:
            yield (
                f'decoding.num_return_sequences is {self.num_return_sequences}, but a search with '
                f'num_beams={self.num_beams} gives no more than that; raise num_beams, or sample '
                f'at a temperature above 0.'
            )

    @property
    def num_rows(self) -> int:
        """Texts that are written side by side for each source."""
        return self.num_return_sequences if self.temperature else self.num_beams
