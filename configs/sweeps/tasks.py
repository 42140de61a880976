"""One checkpoint fine-tuned on every task that has small data, against random weights.

    python -m launch.sweep --sweep=configs/sweeps/tasks.py:mini --workdir=runs/tasks --seeds=3 \
        --override finetune.init_from=docs/models/books.tar.gz \
        --override sst2.data.path=GLUE/SST-2 …

No table of the paper. What it shows is what pretraining is worth on each. The scale mini has the
tasks from which a model of two or three million parameters learns something, and cuts the steps to
what two cores do in minutes.
"""

from configs.changes import Change, FieldValue, Sweep

TASKS = ('sst2', 'mrpc', 'rte', 'stsb', 'qnli', 'squad2', 'upos', 'race')

# (steps, batch, tokens) for a model of 2.5 M parameters on two cores.
MINI = {
    'sst2': (1500, 32, 64),
    'stsb': (900, 32, 64),
    'qnli': (300, 32, 128),
    'squad1': (400, 16, 128),
    'upos': (300, 16, 128),
}
# Peak learning rates, chosen on SST-2 (docs/EXPERIMENTS.md): a model of +modern has large weights,
# random ones are small.
PRETRAINED_RATE = 3e-3
RANDOM_RATES = {'sst2': 3e-4, 'stsb': 3e-4, 'qnli': 3e-4, 'squad1': 3e-4, 'upos': 1e-3}

COLUMNS = {
    'sst2.accuracy': 'SST-2',
    'mrpc.accuracy': 'MRPC',
    'rte.accuracy': 'RTE',
    'stsb.pearson': 'STS-B',
    'qnli.accuracy': 'QNLI',
    'squad1.exact_match': 'SQuAD1.1, exact',
    'squad1.f1': 'SQuAD1.1, F1',
    'squad2.best_f1': 'SQuAD2.0',
    'squad2.f1_answerable': 'of those with an answer',
    'upos.accuracy': 'UPOS',
    'race.accuracy': 'RACE-middle',
}


def get_sweep(scale: str = 'base') -> Sweep:
    """Pretrained and random weights."""
    common: dict[str, FieldValue] = {'finetune.optimizer.bias_correction': True}
    random: dict[str, FieldValue] = {'finetune.from_scratch': True}
    pretrained: dict[str, FieldValue] = {}
    tasks = tuple(MINI) if scale == 'mini' else TASKS
    if scale == 'mini':
        for task, (num_steps, batch_size, length) in MINI.items():
            common |= {
                f'{task}.loop.num_steps': num_steps,
                f'{task}.loop.eval_every': num_steps,
                f'{task}.loop.checkpoint_every': num_steps,
                f'{task}.loop.batch_size': batch_size,
                f'{task}.optimizer.warmup_steps': num_steps // 10,
                f'{task}.task.max_length': length,
                f'{task}.task.stride': length // 3,
            }
            pretrained[f'{task}.optimizer.learning_rate'] = PRETRAINED_RATE
            random[f'{task}.optimizer.learning_rate'] = RANDOM_RATES[task]
    elif scale != 'base':
        raise ValueError(f'there is no scale {scale!r}; there are base and mini')
    return Sweep(
        title='Fine-tuning: pretrained against random weights',
        pretrain='',
        members=[Change('pretrained', pretrained), Change('random', random)],
        tasks=tasks,
        common=common,
        columns={
            metric: title for metric, title in COLUMNS.items() if metric.split('.')[0] in tasks
        },
    )
