"""One user's recommendations, and why."""
