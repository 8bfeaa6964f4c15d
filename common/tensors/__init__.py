"""Tensors in files: weights and Fisher summaries as safetensors."""
