"""Scenes for training, composed by the thousand on the device: who, where, what is said of them."""
