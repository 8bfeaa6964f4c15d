"""What both sides share: graph, Fisher information, merging, dampening, checkpoints, wire."""
