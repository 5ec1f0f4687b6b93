"""What commands print: progress, estimates, tables."""
