"""Recording of lineage during the training of a Flower federation."""
