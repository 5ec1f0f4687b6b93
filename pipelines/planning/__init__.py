"""From rows to units of work."""
