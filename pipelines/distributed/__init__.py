"""Checking and planning a manifest by Ray Data: the stages of ``planning``, side by side."""
