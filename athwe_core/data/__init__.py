"""Source files to records, to a prepared data set on disk, to batches."""
