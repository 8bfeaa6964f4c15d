"""Tests in the folders of what they test; `support` has fixtures, `acceptance` whole systems."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the project."""
