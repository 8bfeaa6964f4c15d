"""Runs of a scenario over Flower's engine."""
