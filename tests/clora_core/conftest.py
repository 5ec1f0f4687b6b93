"""The tiny models, for the tests of the core."""

from oracles.fixtures import (  # noqa: F401
    one_thread,
    tiny_loras,
    tiny_sd_dir,
    tiny_sdxl_dir,
    tiny_sdxl_loras,
)
