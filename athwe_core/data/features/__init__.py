"""Item features beside the interactions: vectors given, built-in text vectors, categories, clusters."""
