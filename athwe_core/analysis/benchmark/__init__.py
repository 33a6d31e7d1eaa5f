"""Time and memory of training steps and of ranking."""
