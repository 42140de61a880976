"""How XLA says that memory is too small."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether the compiler, or a running program, says that it does not fit."""
    return 'RESOURCE_EXHAUSTED' in str(error)
