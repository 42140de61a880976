"""A finished pretraining as a small file, to be shown beside another run."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_jax.cli.json_output import to_json
from albert_jax.runs.runs import PretrainRun
from albert_jax.training import learning_curve


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """What a run was and what it learnt.

    Args:
      config: its `FILE.py:NAME`.
      settings: the run itself, without its corpus's path.
      corpus_fingerprint: of the corpus.
      flops: of the matrix products of the whole training.
      unigram: `mlm_loss` and `mlm_accuracy` of a unigram model on the same held-out pieces.
      evaluations: the lines of its metrics about the held-out text.
    """

    config: str
    settings: dict[str, Any]
    corpus_fingerprint: str
    flops: float
    unigram: dict[str, float]
    evaluations: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> 'RecordedRun':
        """Reads what `write` has written."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Writes a JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(to_json(dataclasses.asdict(self), indent=2) + '\n')

    @property
    def run(self) -> PretrainRun:
        """The run, typed."""
        return PretrainRun.from_dict(self.settings)


def draw(runs: Mapping[str, RecordedRun], output: Path) -> None:
    """Draws the held-out metrics of runs by sequence, and the unigram model of the first.

    Args:
      runs: by what to call them.
      output: PNG to write.

    Raises:
      UserError: if the picture cannot be written.
    """
    learning_curve.draw(
        {name: recorded.evaluations for name, recorded in runs.items()},
        output,
        batch_sizes={name: recorded.run.loop.batch_size for name, recorded in runs.items()},
        levels={'unigram model': next(iter(runs.values())).unigram},
    )
