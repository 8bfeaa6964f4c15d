"""Dampening of models: the problem, strengths, one model, many models, repair."""
