"""Prometheus metrics of a run and of its actors."""
