"""Curvature of the loss of a model, in a basis that is kept with the model."""
