"""Analyses built on the library."""
