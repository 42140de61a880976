"""One checkpoint fine-tuned on every task that has small data, against random weights.

    python -m launch.sweep --sweep=configs/sweeps/tasks.py:mini --workdir=runs/tasks --seeds=3 \
        --override finetune.init_from=runs/small --override sst2.data.path=GLUE/SST-2 …

No table of the paper. What it shows is what pretraining is worth on each. The scale
mini cuts the steps to what two cores do in minutes.
"""

from configs.changes import Change, FieldValue, Sweep

TASKS = ('sst2', 'mrpc', 'rte', 'stsb', 'qnli', 'squad2', 'upos', 'race')

# (steps, batch, tokens, peak learning rate) of a model of 2.5 M parameters on two cores.
MINI = {
    'sst2': (500, 32, 64, 3e-4),
    'mrpc': (115, 32, 128, 2e-4),
    'rte': (80, 32, 128, 1e-4),
    'stsb': (400, 32, 64, 3e-4),
    'qnli': (300, 32, 128, 2e-4),
    'squad2': (300, 16, 128, 3e-4),
    'upos': (300, 16, 128, 1e-3),
    'race': (40, 8, 160, 1e-4),
}


def get_sweep(scale: str = 'base') -> Sweep:
    """Pretrained and random weights."""
    common: dict[str, FieldValue] = {'finetune.optimizer.bias_correction': True}
    if scale == 'mini':
        for task, (num_steps, batch_size, length, learning_rate) in MINI.items():
            common |= {
                f'{task}.loop.num_steps': num_steps,
                f'{task}.loop.eval_every': num_steps,
                f'{task}.loop.checkpoint_every': num_steps,
                f'{task}.loop.batch_size': batch_size,
                f'{task}.optimizer.warmup_steps': num_steps // 10,
                f'{task}.optimizer.learning_rate': learning_rate,
                f'{task}.task.max_length': length,
                f'{task}.task.stride': length // 3,
            }
    elif scale != 'base':
        raise ValueError(f'there is no scale {scale!r}; there are base and mini')
    return Sweep(
        title='Fine-tuning: pretrained against random weights',
        pretrain='',
        members=[Change('pretrained'), Change('random', {'finetune.from_scratch': True})],
        tasks=TASKS,
        common=common,
        columns={
            'sst2.accuracy': 'SST-2',
            'mrpc.accuracy': 'MRPC',
            'rte.accuracy': 'RTE',
            'stsb.pearson': 'STS-B',
            'qnli.accuracy': 'QNLI',
            'squad2.best_f1': 'SQuAD2.0',
            'squad2.f1_answerable': 'of those with an answer',
            'upos.accuracy': 'UPOS',
            'race.accuracy': 'RACE-middle',
        },
    )
