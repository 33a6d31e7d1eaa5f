"""Public data sets: where they are, and how they are fetched."""
