"""The commands of the README's section "From text to text", as written, on a small corpus. Slow."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, xla_flags

SMALL = (
    ' --config.model.embedding_size=16 --config.model.hidden_size=32 '
    '--config.model.num_hidden_layers=2 --config.model.num_attention_heads=2 '
    '--config.model.intermediate_size=64 --config.task.max_length=32 '
    '--config.task.max_target_length=32 --config.task.generate_every=0 --config.loop.num_steps=4 '
    '--config.loop.eval_every=4 --config.loop.checkpoint_every=4 --config.loop.batch_size=8 '
    '--config.optimizer.warmup_steps=1'
)
WORDS = {
    'two': 'zwei', 'dogs': 'Hunde', 'play': 'spielen', 'children': 'Kinder', 'three': 'drei',
    'sleep': 'schlafen', 'sing': 'singen', 'many': 'viele', 'cats': 'Katzen',
}  # fmt: skip


def write_pairs(folder: Path) -> None:
    counts, subjects = ('two', 'three', 'many'), ('dogs', 'children', 'cats')
    english = [
        f'{count} {subject} {verb}'
        for count in counts
        for subject in subjects
        for verb in ('play', 'sleep', 'sing')
    ] * 8
    german = [' '.join(WORDS[word] for word in line.split()) for line in english]
    for name in ('corpus', 'val', 'test'):
        for language, lines in (('en', english), ('de', german)):
            (folder / f'{name}.{language}').write_text(''.join(f'{x}.\n' for x in lines))


@pytest.mark.slow
def test_the_commands_run_one_after_the_other(tmp_path):
    section = (ROOT / 'README.md').read_text().split('## From text to text')[1].split('\n## ')[0]
    (block,) = re.findall(r'```bash\n(.*?)```', section, re.DOTALL)
    commands = block.replace('\\\n', ' ').strip().splitlines()
    names = [re.findall(r'albert_jax\.(\w+)', command)[0] for command in commands]
    assert names == ['prepare', 'finetune', 'predict', 'evaluate', 'explain']
    write_pairs(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    said = {}
    for name, command in zip(names, commands, strict=True):
        command = command.replace('python -m', f'{sys.executable} -m')
        # So small a corpus has no more pieces.
        command = command.replace('--vocab_size=8000', '--vocab_size=48')
        command += SMALL if name == 'finetune' else ''
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False,
            env=os.environ | {'PYTHONPATH': str(ROOT), 'XLA_FLAGS': xla_flags(1)},
        )  # fmt: skip
        assert done.returncode == 0, command + done.stderr
        said[name] = done.stdout
    assert len(said['predict'].splitlines()) == 1
    assert 'bleu' in said['evaluate'] and 'source words' in said['explain']
    assert 'Cross-attention' in (tmp_path / 'why.html').read_text()
