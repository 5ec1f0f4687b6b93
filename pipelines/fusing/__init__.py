"""Fused adapters in an output: which are needed, where they are, and how a row gets its own."""
