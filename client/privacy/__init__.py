"""The privacy of an owner's data: release policy, noise, sample digests, remaining data."""
