"""The Ray cluster of a run: found or started, shared out, and cleaned up."""
