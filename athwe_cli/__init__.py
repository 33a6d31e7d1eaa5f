"""The athwe command line: parses, calls athwe_core, prints."""
