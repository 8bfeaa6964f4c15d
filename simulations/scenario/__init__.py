"""Scenarios: topology, settings, label spaces and what is forgotten."""
