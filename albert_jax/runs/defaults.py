"""A run's defaults as an ml_collections ConfigDict: what the files in `configs/` start from."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from albert_jax.cli.settings import Settings, declared


def defaults(run: type[Settings]) -> ConfigDict:
    """A config with every field of a kind of run at its default.

    A field whose default is to be left open is a placeholder, so that only a value of its type can
    be given.

    Args:
      run: PretrainRun, FinetuneRun, or one section of either.
    """
    return _config_dict(run, run())


def _config_dict(kind: type[Settings], values: Settings) -> ConfigDict:
    config = ConfigDict()
    for field in declared(kind):
        value = getattr(values, field.name)
        if isinstance(value, Settings):
            config[field.name] = _config_dict(field.kind, value)
        elif field.is_optional:
            config[field.name] = placeholder(field.kind)
            if value is not None:
                config[field.name] = value
        else:
            config[field.name] = value
    return config
