"""The document of a real campaign: what was asked and done, who was told, what is left open."""
