"""A model host in this process, for the commands that need no cluster."""

from collections.abc import Mapping
from pathlib import Path

from clora_core.recipe.fusion import Fusion
from pipelines.fusing.fused_files import check_fused, fused_name
from pipelines.session.resources import Resources
from pipelines.session.shares import Shares
from pipelines.stages.fused_work import References
from pipelines.stages.model_host import ModelHost, ModelHostSource
from pipelines.storage.storage import Storage


def local_host(base_model_dirs: Mapping[str, str], resources: Resources) -> ModelHost:
    """Return a host on this machine's GPU, or on its processors if it has none.

    Args:
        base_model_dirs: Folders in diffusers' format, by digest.
        resources: What it may use.
    """
    import torch

    shares = Shares(
        num_generators=1,
        max_generators=1,
        generator_cpus=1.0,
        generator_gpus=1.0 if torch.cuda.is_available() else 0.0,
        generator_threads=None,
        num_helpers=1,
        helper_cpus=0.0,
    )
    return ModelHostSource(base_model_dirs=base_model_dirs, resources=resources)(shares)


def fused_content(
    fusion: Fusion, storage: Storage, references: References, host: ModelHost
) -> tuple[bytes, bool]:
    """Return an adapter's file and whether it was there; if it was not it is made, not kept.

    Raises:
        DamagedFileError: It is there, and came to harm.
        CompositionError: It cannot be made.
    """
    name = fused_name(fusion.key)
    if storage.exists(name):
        check_fused(storage, name)
        return storage.read(name), True
    host.hold(fusion.base_model_digest)
    return host.fuse(fusion, references).content, False


def written_beside(content: bytes, folder: Path, key: str) -> Path:
    """Return a file in ``folder`` with an adapter's content."""
    path = folder / f"{key}.safetensors"
    path.write_bytes(content)
    return path
