"""What the committed weights can do, measured: one family of figures a module."""
