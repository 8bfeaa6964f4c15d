"""Flower integration: transport, owners and the ServerApp of the coordinator."""
