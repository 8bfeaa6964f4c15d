"""Outcomes of unlearning: what a model still recognises, before and after."""
