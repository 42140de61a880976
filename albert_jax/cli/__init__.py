"""What commands share: flags and configs, progress, errors, self-checking dataclasses."""
