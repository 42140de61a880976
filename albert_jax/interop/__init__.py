"""Other people's checkpoints and ours: recognised by what they hold, read and written."""
