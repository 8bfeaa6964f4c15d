"""The report of a run: figures, verdict and HTML."""
