"""Computations that make a version of its parents without training, the same bit for bit."""
