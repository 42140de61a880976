"""Fine-tuning on MRPC: how fast, in batches of how many, for how long.

    python -m launch.search --study=configs/searches/finetuning.py:mrpc --workdir=runs/search \
        --override init_from=MODEL --override data.path=GLUE/MRPC

mrpc: twenty trials of rate, batch, epochs and warm-up.
mrpc-grid: the twenty combinations of Turc et al., arXiv 1908.08962: batches of 8 to 128
by four rates, four epochs each.
"""

from collections.abc import Mapping

from configs.changes import FieldValue
from configs.search_space import Choices, Floats, Integers, Parameters, Search

_NUM_ROWS = 3668  # in train.tsv
_COMMON: dict[str, FieldValue] = {
    # The longest pairs have some hundred tokens.
    'task.max_length': 128,
    'optimizer.bias_correction': True,
}


def _schedule(parameters: Parameters) -> Mapping[str, FieldValue]:
    rate, batch, epochs, warmup = (
        float(parameters[name]) for name in ('rate', 'batch', 'epochs', 'warmup')
    )
    num_steps = round(_NUM_ROWS * epochs / batch)
    quarter = -(-num_steps // 4)
    return {
        'optimizer.learning_rate': float(f'{rate:.3g}'),
        'optimizer.warmup_steps': round(warmup * num_steps),
        'loop.batch_size': int(batch),
        'loop.num_steps': num_steps,
        'loop.eval_every': quarter,
        'loop.checkpoint_every': quarter,
    }


def _of_turc(parameters: Parameters) -> Mapping[str, FieldValue]:
    # A tenth, as in BERT's own run_classifier.py.
    return _schedule({**parameters, 'epochs': 4, 'warmup': 0.1})


def get_search(name: str = 'mrpc') -> Search:
    """The search of a name."""
    if name == 'mrpc':
        return Search(
            title='Fine-tuning on MRPC, searched',
            space={
                'rate': Floats(1e-5, 5e-4, is_log=True),
                'batch': Choices(8, 16, 32, 64),
                'epochs': Integers(2, 5),
                'warmup': Floats(0.0, 0.2),
            },
            fields=_schedule,
            metric='accuracy',
            common=_COMMON,
            num_trials=20,
        )
    if name == 'mrpc-grid':
        return Search(
            title='Fine-tuning on MRPC, the grid of Turc et al.',
            space={'batch': Choices(8, 16, 32, 64, 128), 'rate': Choices(3e-4, 1e-4, 5e-5, 3e-5)},
            fields=_of_turc,
            metric='accuracy',
            common=_COMMON,
            sampler='grid',
            pruner='none',
        )
    raise ValueError(f'there is no search {name!r}; there are mrpc and mrpc-grid')
