"""Layers that models share: flat keyword arguments, no configuration, no files."""
