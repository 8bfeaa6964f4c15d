"""Changes of roots that descendants inherit: codes, packets, sums."""
