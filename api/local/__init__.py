"""The front door for one process: networks of models, their data, and what became of them."""
