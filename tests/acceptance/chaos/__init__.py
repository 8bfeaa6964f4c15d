"""Faults at random points of campaigns, and what must hold after each of them."""
