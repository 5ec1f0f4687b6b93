"""Many rows at once: what proves them good without looking at each from all sides."""
