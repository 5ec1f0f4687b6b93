"""LoRA files, their factors, and the bank that applies several at once, each lane its own mix."""
