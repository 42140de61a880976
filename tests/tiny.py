"""Small models, runs and corpora that many tests use."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_jax.pretraining import job as pretraining
from albert_jax.runs.runs import FinetuneRun, PretrainRun
from albert_jax.tasks import job as finetuning


def pretrain(config: Mapping[str, Any], workdir: Path, num_profiled: int = 0) -> int:
    """As the command does: the config of a run, its folder → the exit status."""
    run = PretrainRun.from_dict(config)
    return pretraining.pretrain(pretraining.prepare(run), workdir, num_profiled)


def finetune(config: Mapping[str, Any], workdir: Path) -> int:
    """As the command does: the config of a run, its folder → the exit status."""
    return finetuning.finetune(finetuning.prepare(FinetuneRun.from_dict(config)), workdir)
