"""Run folders: configuration, checkpoints, metrics and ranks of a training."""
