"""Outcomes of unlearning: recognition by a model, before and after."""
