"""The coordinator: planning, merging, campaigns, the store and the Flower ServerApp."""
