"""The training loop and everything it must not lose."""
