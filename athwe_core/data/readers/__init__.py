"""Source files of several formats to records."""
