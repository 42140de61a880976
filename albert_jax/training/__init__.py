"""How anything is trained: optimizer, sharding, step, loop, checkpoints."""
