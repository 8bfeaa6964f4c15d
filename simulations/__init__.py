"""Data sets, networks, scenarios, references and reports."""
