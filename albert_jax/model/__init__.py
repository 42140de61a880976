"""The model: config, modules, arithmetic, heads, losses and what they cost."""
