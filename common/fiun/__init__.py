"""The method: merge Fisher information, select, dampen (FIUn, arXiv 2408.08493)."""
