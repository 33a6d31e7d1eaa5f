"""Checks of a prepared data set before training."""
