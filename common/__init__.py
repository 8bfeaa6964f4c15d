"""The shared part: graph, Fisher information, merging, dampening, checkpoints, wire."""
