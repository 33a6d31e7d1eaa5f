"""The athwe command line: parse options, call athwe_core, print results."""
