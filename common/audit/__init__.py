"""The audit log and attestations: chain, export, signatures and gaps. No torch."""
