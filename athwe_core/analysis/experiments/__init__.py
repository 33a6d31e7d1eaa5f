"""Several runs compared: ablation, sweep, comparison."""
