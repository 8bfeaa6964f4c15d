"""Deployment of a fleet on one machine: files, programs and supervision."""
