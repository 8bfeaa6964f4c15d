"""Pictures of who inherits from whom, for a few models or for hundreds."""
