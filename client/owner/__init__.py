"""Owners: models, data, networks and devices, and how they fail."""
