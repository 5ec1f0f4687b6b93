"""The tiny models, for the tests of fusing."""

from oracles.fixtures import one_thread, tiny_loras, tiny_sd_dir  # noqa: F401
