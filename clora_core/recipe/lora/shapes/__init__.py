"""The sizes that the shapes of a layer's tensors say, by kinds of update."""
