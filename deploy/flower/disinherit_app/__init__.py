"""Disinherit on Flower."""
