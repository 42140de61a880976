"""The whole main job on the documentation inside this Python: `make demo`.

Prepares a corpus with a vocabulary of its own, pretrains a small ALBERT with LAMB, compares it with
a unigram model on held-out text, and fills three masks. What is there already is not done again.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from albert_jax import curve, fill_mask, prepare, pretrain
from albert_jax.cli import command
from albert_jax.cli.errors import UserError
from albert_jax.cli.paths import local_path
from albert_jax.runs.runs import PretrainRun

_CONFIG = 'configs/pretrain.py:tiny'
_TEXTS = (
    'Returns a new [MASK] with the same elements.',
    'The input must be an [MASK] of floating point numbers.',
    'If the file does not exist, an exception is [MASK].',
)

# A model that has learnt something is well below; a unigram model is above 6.
_MAX_LOSS = 5.6


def main(arguments: Sequence[str]) -> int:
    """Runs the commands one after the other."""
    parser = command.parser('albert_jax.demo', __doc__ or '', '')
    parser.add_argument(
        '--output', type=local_path, default=Path('demo'), help='where all goes (demo)'
    )
    parser.add_argument('--steps', type=int, default=0, help="training steps; 0 for the config's")
    flags = parser.parse_args(arguments)
    started = time.monotonic()
    corpus, workdir = flags.output / 'corpus', flags.output / 'run'
    # What cannot be is refused before the minute that the corpus takes.
    overrides = _overrides(flags.steps)

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
    print('\n2. Pretraining ALBERT with LAMB.', flush=True)
    status = pretrain.main(
        [
            f'--config={_CONFIG}',
            f'--workdir={workdir}',
            f'--config.data.path={corpus}',
            *overrides,
        ]
    )
    if status:
        return status
    print('\n3. Filling masks.', flush=True)
    fill_mask.main([f'--checkpoint={workdir}', *_TEXTS])
    curve.main([f'--output={flags.output / "curve.png"}', str(workdir)])
    print(f'\nThe demo took {(time.monotonic() - started) / 60:.1f} minutes. It wrote')
    print(f'  {corpus}: the prepared corpus and its vocabulary')
    print(f'  {workdir}: checkpoints, metrics.jsonl and tensorboard')
    print(f'  {flags.output / "curve.png"}: the learning curve')
    print('Next, from this directory, with .venv/bin first in PATH:')
    print(f"  python -m albert_jax.fill_mask --checkpoint={workdir} 'Any [MASK] you like.'")
    print(f'  tensorboard --logdir={workdir}/tensorboard')
    print('  python -m albert_jax.prepare --help      (your own text)')
    from albert_jax.pretraining.job import last_evaluation

    loss = last_evaluation(workdir)['mlm_loss']
    if not flags.steps and (loss is None or loss > _MAX_LOSS):
        raise UserError(f'The held-out loss is not below {_MAX_LOSS} nats; this demo has failed.')
    return 0


def _overrides(steps: int) -> list[str]:
    """The fields of the config for a number of steps, with a shorter warm-up where it must be.

    Raises:
      UserError: if there can be no such run.
    """
    if steps < 0:
        raise UserError(f"--steps is {steps}; it must be above 0, or 0 for the config's.")
    overrides = [f'--config.loop.num_steps={steps}'] if steps else []
    warmup_steps = command.read_config(_CONFIG, [])['optimizer']['warmup_steps']
    if 0 < steps <= warmup_steps:
        # The share of the run that the config has.
        overrides.append(f'--config.optimizer.warmup_steps={steps // 10}')
    PretrainRun.from_dict(command.read_config(_CONFIG, overrides))
    return overrides


if __name__ == '__main__':
    command.run(main)
