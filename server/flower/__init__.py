"""Flower: transport, owners and the ServerApp of the coordinator."""
