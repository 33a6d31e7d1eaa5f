"""Prepared data sets for other programs."""
