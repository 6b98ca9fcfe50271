"""The only place that may hold both the truth and a result."""
