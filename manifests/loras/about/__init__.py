"""What can be said of a LoRA file to a person, beyond what a run needs."""
