"""LoRA files and the catalog that names them."""
