"""Changes of roots at their owner and at the owners of their descendants."""
