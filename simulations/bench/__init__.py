"""The bench: suites of cases and methods, run over and over, and what came of it."""
