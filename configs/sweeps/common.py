"""What the ablations of the paper have in common: their tasks, their columns, their two scales.

base: the paper's setting, for TPUs; every member is pretrained for 125k steps and fine-tuned on the
five tasks of the paper's averages (the average takes the mean of F1 and EM of each SQuAD).
mini: the same differences at a size that two cores train in minutes, and SST-2. The parent is
configs/pretrain.py:mini+modern with sentence order: the paper's own recipe learns too little in so
short a run to tell its members apart. The masked-LM columns are of the same text for all members.
"""

from collections.abc import Mapping, Sequence

from configs.changes import Change, FieldValue, Sweep

TASKS = ('squad1', 'squad2', 'mnli', 'sst2', 'race')
COLUMNS = {
    'parameters': 'parameters',
    'squad1.f1': 'SQuAD1.1 F1',
    'squad1.exact_match': 'SQuAD1.1 EM',
    'squad2.best_f1': 'SQuAD2.0 F1',
    'squad2.best_exact_match': 'SQuAD2.0 EM',
    'mnli.accuracy': 'MNLI',
    'sst2.accuracy': 'SST-2',
    'race.accuracy': 'RACE',
    'average': 'Avg',
}
MINI_COLUMNS = {
    'parameters': 'parameters',
    'intrinsic.unpaired_mlm_loss': 'MLM loss',
    'intrinsic.unpaired_mlm_accuracy': 'MLM',
    'intrinsic.nsp_accuracy': 'NSP',
    'intrinsic.sop_accuracy': 'SOP',
    'sst2.accuracy': 'SST-2',
}
# The optimizer of +modern, with its rates.
MUON: dict[str, FieldValue] = {
    'optimizer.name': 'muon',
    'optimizer.learning_rate': 0.003,
    'optimizer.muon_learning_rate': 0.01,
    'optimizer.beta2': 0.98,
}
# From text to text, minutes on two cores.
GENERATION_MINI: dict[str, FieldValue] = {
    **MUON,
    'optimizer.warmup_steps': 100,
    'task.generate_every': 1000,
    'loop.num_steps': 1000,
    'loop.eval_every': 500,
    'loop.checkpoint_every': 500,
}
MINI_COMMON: dict[str, FieldValue] = {
    'pretrain.pretraining.sentence_loss': 'sop',
    'sst2.loop.num_steps': 400,
    'sst2.loop.eval_every': 200,
    'sst2.loop.checkpoint_every': 200,
    'sst2.optimizer.warmup_steps': 40,
    # Better than AdamW at its best rate (docs/EXPERIMENTS.md).
    **{f'sst2.{field}': value for field, value in MUON.items()},
    'sst2.optimizer.bias_correction': True,
    'sst2.task.max_length': 64,
}
PAPER = 'Lan et al., arXiv 1909.11942'


def ablation(
    scale: str,
    title: str,
    parent: str,
    base: Sequence[Change],
    mini: Sequence[Change],
    published: Mapping[str, Mapping[str, float]] | None = None,
    table: str = '',
    columns: Mapping[str, str] | None = None,
    mini_published: Mapping[str, Mapping[str, float]] | None = None,
) -> Sweep:
    """One table at one of the two scales.

    Args:
      scale: base or mini.
      title: of the table.
      parent: name in configs/pretrain.py that `base` differs from.
      base: members at the paper's scale.
      mini: members at the scale of a laptop.
      published: the paper's numbers, by row and column.
      table: where they stand in it.
      columns: more of them at the paper's scale.
      mini_published: the paper's numbers for the rows of `mini`, where those have other names.
    """
    if scale not in ('base', 'mini'):
        raise ValueError(f'there is no scale {scale!r}; there are base and mini')
    source = f'{PAPER}, {table}' if table else ''
    if scale == 'mini':
        return Sweep(
            title=f'{title}, mini',
            pretrain='configs/pretrain.py:mini+modern',
            members=mini,
            tasks=('sst2',),
            common=MINI_COMMON,
            columns=MINI_COLUMNS,
            published=mini_published or published or {},
            source=source,
        )
    return Sweep(
        title=title,
        pretrain=f'configs/pretrain.py:{parent}',
        members=base,
        tasks=TASKS,
        columns={**(columns or {}), **COLUMNS},
        published=published or {},
        source=source,
    )


def averages(**rows: float) -> dict[str, dict[str, float]]:
    """Published averages by row; an underscore in a name stands for a dash."""
    return {row.replace('_', '-'): {'Avg': value} for row, value in rows.items()}
