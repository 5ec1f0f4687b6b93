"""LoRA files without torch: their names, layers, places in a base model, and strengths."""
