"""What a run is, typed: every field of a config with its default, its bounds and its meaning.

Nothing here imports JAX, so that `--help` and a config that is refused cost no time.
"""
