"""A fine-tuning that can start: its task, its data and its starting point."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from albert_jax.cli.errors import UserError
from albert_jax.data.hub_tokenizer import AnyTokenizer
from albert_jax.interop.checksums import digest_of_all
from albert_jax.interop.native import Pretrained
from albert_jax.model.heads import Head
from albert_jax.runs.runs import FinetuneRun
from albert_jax.tasks.encoded import Encoder, cache_folder, read_examples
from albert_jax.tasks.features import Features, PairedFeatures
from albert_jax.tasks.generation import GenerationTask
from albert_jax.tasks.pair_features import PairFeatures
from albert_jax.tasks.registry import make_task
from albert_jax.tasks.start import starting_point
from albert_jax.tasks.target_vocabulary import note_target_vocabulary
from albert_jax.tasks.task import Task, digest_of

# Examples and their features, by the suffix of their metrics.
Splits = Mapping[str, tuple[Sequence[Any], Features]]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A fine-tuning that can start: its task, its data and its starting point."""

    run: FinetuneRun
    task: Task
    head: Head
    start: Pretrained
    tokenizer: AnyTokenizer
    # What is trained on, and as it was read.
    train: Features | PairedFeatures
    train_examples: Sequence[Any]
    validation: Splits
    test: Splits
    # Of all examples but the test's.
    data_digest: str

    @property
    def start_digest(self) -> str:
        """Of the weights that it starts from."""
        return digest_of_all(self.start.params) if self.start.params else 'random'


def prepare(run: FinetuneRun, tokenizer: AnyTokenizer | None = None) -> Prepared:
    """Reads the checkpoint and the data, and encodes them or finds them in the cache.

    Args:
      run: of the fine-tuning.
      tokenizer: of a model from scratch for which the config names no vocabulary.

    Raises:
      UserError: if something cannot be read or does not fit.
    """
    task = make_task(run.task)
    is_generation = isinstance(task, GenerationTask)
    if is_generation:
        _check_evaluations(run)
    examples = read_examples(run.data, task)
    start = starting_point(run, tokenizer, is_generation)
    tokenizer = start.tokenizer
    if tokenizer is None:
        raise UserError(
            f'{run.init_from} has no vocabulary; give one with --config.data.vocabulary=FILE.'
        )
    positions = start.config.max_position_embeddings
    for name in ('max_length', 'max_target_length')[: 1 + is_generation]:
        length = getattr(run.task, name)
        if length > positions:
            raise UserError(
                f'task.{name} is {length}, but the model has {positions} positions; '
                f'set --config.task.{name}={positions} or less.'
            )
    head = task.head(examples.train)
    encode = Encoder(task, tokenizer, head, cache_folder(run.data))
    encoded_train = encode(examples.train, True)
    if not encoded_train.num_examples:
        raise UserError(
            f'Nothing of {examples.train[0].where} and what follows can be trained on: no answer '
            f'fits into task.max_length, which is {run.task.max_length}.'
        )
    if isinstance(encoded_train, PairFeatures):
        note_target_vocabulary(examples.train, encoded_train, tokenizer)
    return Prepared(
        run=run,
        task=task,
        head=head,
        start=start,
        tokenizer=tokenizer,
        train=encoded_train,
        train_examples=examples.train,
        validation=encode.each(examples.validation),
        test=encode.each(examples.test),
        data_digest=digest_of(
            [digest_of(examples.train), *map(digest_of, examples.validation.values())]
        ),
    )


def _check_evaluations(run: FinetuneRun) -> None:
    """Refuses evaluations with texts between those of the loop, or whose state is not saved.

    Raises:
      UserError: see above.
    """
    loop, every = run.loop, run.task.generate_every
    if every >= loop.num_steps:
        # Texts of the last step alone, which is evaluated and saved whatever the intervals.
        return
    if every % loop.eval_every:
        raise UserError(
            f'task.generate_every is {every}; it must be a multiple of loop.eval_every, which is '
            f'{loop.eval_every}.'
        )
    if every and every % loop.checkpoint_every and loop.checkpoint_every % every:
        raise UserError(
            f'task.generate_every is {every} and loop.checkpoint_every is {loop.checkpoint_every}; '
            f'make one a multiple of the other, so that the best checkpoint can be told.'
        )
