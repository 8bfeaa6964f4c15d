"""A whole fleet on one machine: its files, its programs, and what keeps them running."""
