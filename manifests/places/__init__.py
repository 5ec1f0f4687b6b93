"""Where files are: paths and URIs, what a service may read, local copies, retries."""
