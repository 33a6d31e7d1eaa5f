"""`athwe serve`: a trained run as an HTTP service. The only place that knows the web framework."""
