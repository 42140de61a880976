"""How well a pretrained model does what it was pretrained for, and the other sentence task too.

Table 5 of the paper: accuracy on masked pieces, next sentence and sentence order, whichever
sentence loss the model was trained with. Its one head for pairs of segments answers both: for a
model trained without a sentence loss it is as it was drawn.
"""

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.progress import track

from albert_jax.cli.errors import UserError
from albert_jax.cli.phase import phase
from albert_jax.cli.report import print_metrics, write_results
from albert_jax.data import vocabulary_normalization
from albert_jax.data.dataset import PreparedCorpus
from albert_jax.data.pretraining import PretrainingData
from albert_jax.data.tokenizer import Tokenizer
from albert_jax.interop.native import Pretrained, complete
from albert_jax.model.losses import Sum, add, means
from albert_jax.runs.loop import PretrainLoopSettings
from albert_jax.runs.pretraining import PretrainingSettings
from albert_jax.training import objectives
from albert_jax.training.sharding import make_mesh, put_batch
from albert_jax.training.step import make_eval_step

_TASKS = ('sop', 'nsp')


def evaluate(model: Pretrained, corpus: PreparedCorpus, batch_size: int = 32) -> dict[str, float]:
    """Loss and accuracy of masked pieces, sentence order and next sentence on held-out text.

    Sequences are made as in the model's own run (its defaults for a model from elsewhere); the
    masks are those of its own sentence task. `unpaired_mlm_loss` and `unpaired_mlm_accuracy` are of
    full sequences of one segment with 15 % masked, the same text and masks for every model of one
    corpus, length and seed: they compare runs that differ in the sentence loss or in the masks.

    Args:
      model: with its pretraining heads.
      corpus: whose held-out split is scored, once.
      batch_size: sequences at a time.

    Raises:
      UserError: if the vocabulary is not the corpus's, or the masked-LM head is missing.
    """
    if 'mlm' not in model.params:
        raise UserError('The model has no masked-LM head, so it is no pretrained one.')
    if model.tokenizer is not None and model.tokenizer.sha256 != corpus.tokenizer.sha256:
        raise UserError(f'{corpus.directory} has another vocabulary than the model.')
    if isinstance(model.tokenizer, Tokenizer):
        vocabulary_normalization.note_difference(
            'the model', model.tokenizer, str(corpus.directory), corpus.tokenizer
        )
    completed = complete(model)
    own = model.run_section(PretrainingSettings) or PretrainingSettings()
    length = min(own.sequence_length, model.config.max_position_embeddings)
    own = dataclasses.replace(own, sequence_length=length, short_phase_steps=0)
    loop = model.run_section(PretrainLoopSettings)
    seed = loop.seed if loop else 0
    metrics: dict[str, float] = {}
    # Its own first, for that one's masks; two segments in order are what a run without a sentence
    # loss has seen.
    for task in dict.fromkeys((own.sentence_loss, *_TASKS)):
        settings = dataclasses.replace(own, sentence_loss=task)
        data = PretrainingData(corpus, 'validation', settings, batch_size, seed)
        metrics = {**_means(completed, data, task), **metrics}
    unpaired = _unpaired(own)
    if unpaired == own.held_out:
        of_unpaired = metrics
    else:
        data = PretrainingData(corpus, 'validation', unpaired, batch_size, seed)
        of_unpaired = _means(completed, data, 'none')
    metrics |= {f'unpaired_{name}': of_unpaired[name] for name in ('mlm_loss', 'mlm_accuracy')}
    return {name: metrics[name] for name in sorted(metrics)}


def _unpaired(own: PretrainingSettings) -> PretrainingSettings:
    """Held-out text that does not depend on how a model was trained, its length aside."""
    defaults = PretrainingSettings()
    return dataclasses.replace(
        own.held_out,
        sentence_loss='none',
        short_fraction=0.0,
        masked_fraction=defaults.masked_fraction,
        max_ngram=defaults.max_ngram,
    )


def report(model: Pretrained, directory: str, batch_size: int, output: Path | None) -> None:
    """Prints what `evaluate` gives for a corpus, and writes it if asked.

    Args:
      model: with its pretraining heads.
      directory: of the corpus.
      batch_size: sequences at a time.
      output: folder for results.json.

    Raises:
      UserError: if the model does not fit the corpus, or the file cannot be written.
    """
    with phase(f'Evaluating on the held-out text of {directory}, once for each way to mask it …'):
        metrics = evaluate(model, PreparedCorpus(directory), batch_size)
    print(f'{directory}: the held-out text')
    print_metrics(metrics)
    if output:
        print(f'Wrote {write_results(metrics, output)}.')


def _means(model: Pretrained, data: PretrainingData, task: str) -> dict[str, float]:
    mesh = make_mesh(1)
    step = make_eval_step(objectives.pretraining(model.config, task), mesh)
    total: dict[str, Sum] | None = None
    for number in track(
        range(data.num_eval_batches), f'evaluating {task}', disable=not Console().is_terminal
    ):
        sums = step(model.params, put_batch(mesh, data.eval_batch(number)))
        total = sums if total is None else add(total, sums)
    assert total is not None
    return means(total)
