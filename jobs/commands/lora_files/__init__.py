"""Commands about LoRA files: what they are, and several fused into one."""
