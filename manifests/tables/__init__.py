"""Tables of rows, read under limits: Parquet, CSV, JSON lines."""
