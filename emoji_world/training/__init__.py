"""How the embedded world is trained: one stage a module, run by ``python -m emoji_world.train``."""
