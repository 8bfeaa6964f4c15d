"""Ways to unlearn a root itself, whose change its descendants inherit."""
