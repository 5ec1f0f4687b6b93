"""One row: as written, checked, and in the table of all rows."""
