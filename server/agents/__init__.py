"""Owners on edge devices: their agents dial in, hold a stream, and are asked over it."""
