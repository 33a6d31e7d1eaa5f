"""The networks, each behind one interface."""
