"""The whole main job on the documentation inside this Python: `make demo`.

Prepares a corpus with a vocabulary of its own, pretrains a small ALBERT by a recipe of today, puts
it beside the paper's recipe and a unigram model on held-out text, and fills three masks. What is
there already is not done again.
"""

import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from albert_jax import fill_mask, prepare
from albert_jax.cli import command, next_steps
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import local_path
from albert_jax.runs.reading import read_run
from albert_jax.runs.runs import PretrainRun

_CONFIG, _NUM_STEPS = 'configs/pretrain.py:tiny+modern', 4000
_RECIPE = """\
The recipe is tiny+modern of configs/pretrain.py: Muon, rotary positions, norms before the
sublayers, 45 % of the pieces masked, batches of 8, no sentence loss. The paper's, tiny, has LAMB,
learned positions, norms after the sublayers, 15 % masked, batches of 32, sentence order. It is not
trained here: its run of as many FLOPs is recorded in configs/recorded/tiny.json."""
# The command is in benchmarks/record_run.py.
_PAPER, _PAPER_FILE = "the paper's recipe", Path('configs/recorded/tiny.json')
_TEXTS = (
    'Returns a new [MASK] with the same elements.',
    'The input must be a [MASK] of strings.',
    'If the argument is not [MASK], the default value is used.',
)

# The paper's recipe comes to 5.1, and a unigram model to 5.8.
_MAX_LOSS = 4.4


def main(arguments: Sequence[str]) -> int:
    """Runs the commands one after the other."""
    parser = command.parser('albert_jax.demo', __doc__ or '', '')
    parser.add_argument(
        '--output', type=local_path, default=Path('demo'), help='where all goes (demo)'
    )
    parser.add_argument('--steps', type=int, default=0, help=f'training steps; 0 for {_NUM_STEPS}')
    flags = parser.parse_args(arguments)
    started = time.monotonic()
    corpus, workdir = flags.output / 'corpus', flags.output / 'run'
    picture = flags.output / 'curve.png'
    # What cannot be is refused before the minute that the corpus takes.
    run = _run(flags.steps, corpus)

    print('1. Preparing the documentation inside this Python installation as a corpus.', flush=True)
    prepare.main(
        [
            '--input=builtin',
            f'--output={corpus}',
            '--vocabulary=train',
            '--vocab_size=4096',
            '--sequence_length=64',
            '--validation_fraction=0.03',
        ]
    )
    status = _pretrain(run, workdir, picture)
    if status:
        return status
    print('\n3. Filling masks.', flush=True)
    fill_mask.main([f'--checkpoint={workdir}', *_TEXTS])
    print(f'\nThe demo took {(time.monotonic() - started) / 60:.1f} minutes. It wrote')
    print(f'  {corpus}: the prepared corpus and its vocabulary')
    print(f'  {workdir}: checkpoints, metrics.jsonl and tensorboard')
    print(f'  {picture}: the learning curves')
    next_steps.show(
        next_steps.fill_mask(workdir),
        f'tensorboard --logdir={shlex.quote(str(workdir / "tensorboard"))}',
        'python -m albert_jax.prepare --help  # for your own text',
        title='Next, from this directory, with .venv/bin first in PATH:',
    )
    from albert_jax.pretraining.job import last_evaluation

    loss = last_evaluation(workdir)['mlm_loss']
    if not flags.steps and (loss is None or loss > _MAX_LOSS):
        raise UserError(f'The held-out loss is not below {_MAX_LOSS} nats; this demo has failed.')
    return 0


def _run(steps: int, corpus: Path) -> PretrainRun:
    """The run for a number of steps, 0 for the demo's.

    Raises:
      UserError: if there can be no such run.
    """
    if steps < 0:
        raise UserError(f'--steps is {steps}; it must be above 0, or 0 for {_NUM_STEPS}.')
    steps = steps or _NUM_STEPS
    overrides = [f'--config.data.path={corpus}', f'--config.loop.num_steps={steps}']
    return read_run(PretrainRun, _CONFIG, overrides)


def _pretrain(run: PretrainRun, workdir: Path, picture: Path) -> int:
    """Trains, reports and draws; returns the exit status."""
    from albert_jax.interop.native import expected_shapes
    from albert_jax.pretraining.job import prepare as prepare_run
    from albert_jax.pretraining.job import pretrain, record
    from albert_jax.pretraining.recorded import RecordedRun, draw

    model = run.albert
    num_params = sum(math.prod(shape) for shape in expected_shapes(model).values())
    print(
        f'\n2. Pretraining an ALBERT of {num_params:,} parameters: '
        f'{model.num_hidden_layers} layers of width {model.hidden_size} that share the weights of '
        f'one.\n{_RECIPE}',
        flush=True,
    )
    prepared = prepare_run(run)
    paper = RecordedRun.read(_PAPER_FILE)
    status = pretrain(prepared, workdir, compared_with={_PAPER: paper})
    if status == 0:
        if paper.corpus_fingerprint != prepared.corpus.fingerprint:
            print(
                f'note: {_PAPER} was recorded on another corpus (Python or its packages are of '
                f'other versions than those of requirements.txt); its figures are of other '
                f'held-out text.'
            )
        draw({'this model': record(prepared, _CONFIG, workdir), _PAPER: paper}, picture)
    return status


if __name__ == '__main__':
    command.run(main, trains=True)
