"""Who may write: the lease of an output, claims on shared units, and signs of life."""
