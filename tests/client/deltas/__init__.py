"""Tests of the changes of roots at owners."""
