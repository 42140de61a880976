"""BERT-large against ALBERT-xxlarge in the same time: section 4.7 of the paper.

    python -m launch.sweep --sweep=configs/sweeps/equal_time.py:base --workdir=runs/equal_time \
        --override pretrain.data.path=CORPUS --override mnli.data.path=GLUE/MNLI …

xxlarge trains at 0.3 times the speed of BERT-large (Table 2), so that BERT-large has 125k / 0.3
steps. At the scale mini a wide shared net has the steps that cost the FLOPs of the narrow
one's 2,400. No published averages are at hand.
"""

from configs.changes import Change, Sweep
from configs.sweeps.common import ablation


def get_sweep(scale: str = 'base') -> Sweep:
    bert_large = {
        'pretrain.model.size': 'bert_large',
        'pretrain.pretraining.sentence_loss': 'nsp',
        'pretrain.loop.num_steps': round(125_000 / 0.3),
    }
    bert_mini = {
        'pretrain.model.sharing': 'none',
        'pretrain.model.embedding_size': 128,
        'pretrain.pretraining.sentence_loss': 'nsp',
    }
    wide_mini = {
        'pretrain.model.hidden_size': 256,
        'pretrain.model.num_attention_heads': 8,
        'pretrain.model.intermediate_size': 1024,
        'pretrain.loop.num_steps': 989,
    }
    base = [Change('bert-large', bert_large), Change('albert-xxlarge')]
    mini = [Change('bert', bert_mini), Change('albert', wide_mini)]
    return ablation(scale, 'Equal time', 'xxlarge', base, mini)
