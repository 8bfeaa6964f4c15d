"""Trainers of open-unlearning as root methods, run by its own Python."""
