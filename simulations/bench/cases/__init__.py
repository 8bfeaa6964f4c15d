"""Cases of the bench: trained networks with what is to be forgotten."""
