"""The panel: what is measured of every model, always beside its exact retraining."""
