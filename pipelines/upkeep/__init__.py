"""Looking after an output: verify it, repair it, delete what nothing needs."""
