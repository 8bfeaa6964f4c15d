"""Networks that simulations train."""
