"""A picture of ours and the recipe it carries."""
