"""The executors that core brings: the NumPy reference and torch."""
