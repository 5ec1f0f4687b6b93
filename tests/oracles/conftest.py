"""The tiny models, for the oracles' own tests."""

from oracles.fixtures import (  # noqa: F401
    one_thread,
    tiny_loras,
    tiny_sd_dir,
    tiny_sdxl_dir,
    tiny_sdxl_loras,
)
