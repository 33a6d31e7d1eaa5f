"""Loss terms: pure functions, tensors in, scalar out."""
