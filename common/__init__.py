"""What both sides share: the graph, Fisher information, merging, dampening, checkpoints, the wire."""
