"""Fine-tuning: `configs/finetune.py:TASK`, the paper's Table 14 (section 4.8 and appendix A.4).

    python -m albert_jax.finetune --config=configs/finetune.py:sst2 --workdir=runs/sst2 \
        --config.init_from=runs/base --config.data.path=GLUE/SST-2

The paper takes the best checkpoint on dev, one every 100 steps, and the median of five runs
(`--config.seeds=5`); RTE, STS-B and MRPC start from an MNLI checkpoint (`init_from` takes that
too). Batch sizes and lengths are the paper's.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs.pretrain import model_fields

# task: (learning rate, batch, dropout of the encoder, steps, warmup steps, length)
TABLE_14 = {
    'cola': (1e-5, 16, 0.0, 5336, 320, 512),
    'stsb': (2e-5, 16, 0.0, 3598, 214, 512),
    'sst2': (1e-5, 32, 0.0, 20935, 1256, 512),
    'mnli': (3e-5, 128, 0.0, 10000, 1000, 512),
    'qnli': (1e-5, 32, 0.0, 33112, 1986, 512),
    'qqp': (5e-5, 128, 0.1, 14000, 1000, 512),
    'rte': (3e-5, 32, 0.1, 800, 200, 512),
    'mrpc': (2e-5, 32, 0.0, 800, 200, 512),
    'wnli': (2e-5, 16, 0.1, 2000, 250, 512),
    'squad1': (5e-5, 48, 0.0, 3649, 365, 384),
    'squad2': (3e-5, 48, 0.0, 8144, 814, 512),
    'race': (2e-5, 32, 0.1, 12000, 1000, 512),
}
# Not in the paper: BERT's habits for tagging, and a start for one's own data.
OTHERS = {
    'ner': (3e-5, 32, 0.1, 1500, 150, 256),
    'upos': (3e-5, 32, 0.1, 1200, 120, 256),
    'tags': (3e-5, 32, 0.1, 1200, 120, 256),
    'classification': (2e-5, 32, 0.1, 1000, 100, 256),
    'regression': (2e-5, 32, 0.1, 1000, 100, 256),
}


def get_config(task: str = 'sst2') -> ConfigDict:
    """The config of a task."""
    named = TABLE_14 | OTHERS
    if task not in named:
        raise ValueError(f'there is no task {task!r}; there are {", ".join(named)}')
    learning_rate, batch_size, dropout, num_steps, warmup_steps, length = named[task]
    config = ConfigDict()

    config.init_from = ''  # anything that albert_jax.load takes
    config.from_scratch = False  # random weights, of init_from's shape or of model.size
    config.seeds = 1  # so many runs, and their median and spread

    config.model = model_fields()  # those left empty are init_from's
    config.model.size = placeholder(str)  # of a model from scratch without init_from
    config.model.hidden_dropout_prob = dropout
    config.model.attention_probs_dropout_prob = dropout

    config.data = ConfigDict()
    config.data.path = ''  # folder with the published files, or tfds:NAME
    config.data.train = ''  # a file in place of the folder's
    config.data.validation = ''
    config.data.test = ''
    config.data.validation_fraction = 0.0  # of the training file, held out in its place
    config.data.vocabulary = ''  # of a model from scratch without init_from
    config.data.cache = ''  # folder of encoded examples; empty for the user's cache

    config.task = ConfigDict()
    config.task.name = task
    config.task.max_length = length  # tokens
    config.task.head_dropout = 0.1
    config.task.text = 'text'  # columns of one's own files
    config.task.text_pair = ''
    config.task.label = 'label'
    config.task.labels = ''  # with commas between; empty for those of the training file
    config.task.stride = 128  # tokens between windows of a passage
    config.task.max_query_length = 64  # tokens
    config.task.max_answer_length = 30  # tokens
    config.task.num_best = 20  # answers that are written
    config.task.tag_column = -1  # of CoNLL files
    config.task.max_option_length = 128  # tokens of RACE's question and option

    config.robust = ConfigDict()
    config.robust.adversarial_steps = 0  # FreeLB; 2 or 3
    config.robust.adversarial_learning_rate = 0.1
    config.robust.adversarial_start = 0.05
    config.robust.adversarial_max_norm = 0.0  # 0 for no limit
    config.robust.replaced_fraction = 0.0  # of the tokens, by random ones
    config.robust.head_learning_rate_factor = 1.0
    config.robust.layer_decay = 1.0  # of the learning rate, a layer down; for sharing none

    config.optimizer = ConfigDict()
    config.optimizer.name = 'adamw'
    config.optimizer.learning_rate = learning_rate  # peak
    config.optimizer.schedule = 'linear'
    config.optimizer.warmup_steps = warmup_steps
    config.optimizer.end_learning_rate = 0.0
    config.optimizer.beta1 = 0.9
    config.optimizer.beta2 = 0.999
    config.optimizer.eps = 1e-6
    config.optimizer.weight_decay = 0.01
    config.optimizer.clip_norm = 1.0
    config.optimizer.bias_correction = False  # as Google's; True is steadier on small data

    config.loop = ConfigDict()
    config.loop.num_steps = num_steps
    config.loop.batch_size = batch_size
    config.loop.num_microbatches = 1
    config.loop.num_devices = 0  # 0 for all
    config.loop.num_fsdp = 0  # devices that split a copy of the state; 0 chooses by its size
    config.loop.seed = 0
    config.loop.log_every = 50
    config.loop.eval_every = 100
    config.loop.checkpoint_every = 100
    config.loop.keep_last = 1
    config.loop.patience = 0  # evaluations without a better one; 0 for never
    return config
