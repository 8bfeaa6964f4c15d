"""The audit log and attestations: chain, export, signatures and limitations. No torch."""
