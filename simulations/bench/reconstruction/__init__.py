"""Reconstruction of deleted samples from the change of a root, with and without protection."""
