"""Owners: models, data, networks, devices and failures."""
