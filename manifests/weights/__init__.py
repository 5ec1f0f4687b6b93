"""Weight files: safetensors headers, digests, and what a base model says of itself."""
