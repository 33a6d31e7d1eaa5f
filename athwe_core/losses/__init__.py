"""Loss terms: functions from tensors to a scalar, without state."""
