"""Families of models that others recorded: read from cards, configs and registries. No torch."""
