"""Reports and attestations of campaigns, and the signing key."""
