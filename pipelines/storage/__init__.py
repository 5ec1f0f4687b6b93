"""Where an output is kept: a folder or a bucket, written durably and create-if-absent."""
