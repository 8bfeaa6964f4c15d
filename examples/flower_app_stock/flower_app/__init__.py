"""A stock Flower / PyTorch app."""
