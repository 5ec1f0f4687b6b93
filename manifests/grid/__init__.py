"""Rows from axes: sweeps, prompt lists and product catalogs."""
