"""Campaigns: passes over affected models with their owners."""
