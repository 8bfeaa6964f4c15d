"""Recording of lineage while a Flower federation trains."""
