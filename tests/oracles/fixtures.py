"""Fixtures that hand out the tiny models and LoRA files, each built once a session.

``conftest.py`` files import them by name.
"""

from pathlib import Path

import pytest
import torch
from oracles.tiny_loras import TinyLoras, build_tiny_loras, build_tiny_sdxl_loras
from oracles.tiny_models import build_tiny_sd, build_tiny_sdxl


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Small models are fastest on one thread, and sums come out in the same order."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_sd_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1.5 folder in small."""
    return build_tiny_sd(tmp_path_factory.mktemp("tiny-sd"))


@pytest.fixture(scope="session")
def tiny_loras(tiny_sd_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyLoras:
    """LoRA files of every format for ``tiny_sd_dir``."""
    return build_tiny_loras(tiny_sd_dir, tmp_path_factory.mktemp("tiny-sd-loras"))


@pytest.fixture(scope="session")
def tiny_sdxl_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL folder in small."""
    return build_tiny_sdxl(tmp_path_factory.mktemp("tiny-sdxl"))


@pytest.fixture(scope="session")
def tiny_sdxl_loras(tiny_sdxl_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyLoras:
    """LoRA files for ``tiny_sdxl_dir``."""
    return build_tiny_sdxl_loras(tiny_sdxl_dir, tmp_path_factory.mktemp("tiny-sdxl-loras"))
