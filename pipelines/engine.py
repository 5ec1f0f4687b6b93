"""The engine an actor holds: the base model pinned in memory, a LoRA cache, the composer.

Actors are given an ``EngineSource``, a small value that can be sent anywhere, and build the engine
from it where they run. Tests give a source of their own; that is the only seam.
"""

import json
import platform
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

from clora_core.config import ENGINE_VERSION
from clora_core.rows import ComposedImage, ComposeRow, RowFailure
from manifests.folder_cache import local_folder
from pipelines.lora_identity import LoraIdentity, compose_unchanged

if TYPE_CHECKING:
    from clora_core.composer import Composer
    from clora_core.lora.cache import LoraCache

__all__ = ["Engine", "EngineSource", "EngineUse", "LoadEngine"]

_VERSIONED = ("clora-batch", "torch", "diffusers", "transformers", "numpy")


@dataclass(frozen=True, kw_only=True)
class EngineUse:
    """Counters of an engine since it was loaded; ``cache_bytes`` and ``peak`` are as of now."""

    lora_hits: int = 0
    lora_misses: int = 0
    lora_evictions: int = 0
    lora_load_seconds: float = 0.0
    lora_cache_bytes: int = 0
    peak_memory_bytes: int = 0


class Engine(Protocol):
    """What the generate stage needs of an engine."""

    device: str
    versions_json: str

    def compose(self, rows: Sequence[ComposeRow]) -> list[ComposedImage | RowFailure]:
        """Return one result per row, in order; a machine's fault is raised."""
        ...

    def use(self) -> EngineUse:
        """Return the counters."""
        ...

    def held_loras(self) -> frozenset[str]:
        """Return the digests of the LoRAs that need not be read again."""
        ...


LoadEngine = Callable[[], Engine]


@dataclass(frozen=True, kw_only=True)
class EngineSource:
    """Where an engine comes from.

    Attributes:
        base_model_dir: Folder in diffusers' format: a path that every machine has, or a URI.
        lora_cache_bytes: Budget of the LoRA cache. More keeps LoRAs of more units.
        dtype: Numbers of the base model: ``float32``, ``float16`` or ``bfloat16``.
        use_gpu: Sample on the GPU that Ray gave the actor.
        num_threads: CPU threads of the sampler; None leaves them to torch.
        max_lanes: Most samples in one UNet call; None takes what fits.
    """

    base_model_dir: str
    lora_cache_bytes: int
    dtype: str
    use_gpu: bool
    num_threads: int | None
    max_lanes: int | None

    def __call__(self) -> Engine:
        """Load the base model and return its engine."""
        import torch

        from clora_core.composer import Composer
        from clora_core.diffusion.model import load_base_model
        from clora_core.lora.cache import LoraCache

        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        device = "cuda" if self.use_gpu else "cpu"
        model = load_base_model(local_folder(self.base_model_dir), dtype=self.dtype, device=device)
        cache = LoraCache(self.lora_cache_bytes)
        composer = Composer(model, cache, max_lanes=self.max_lanes)
        return _LoadedEngine(composer, cache, device, self.dtype)


class _LoadedEngine:
    def __init__(self, composer: "Composer", cache: "LoraCache", device: str, dtype: str) -> None:
        self._composer = composer
        self._cache = cache
        self._identity = LoraIdentity()
        self._on_gpu = device == "cuda"
        self.device = f"{_device_name(device)} {dtype}"
        self.versions_json = _versions_json()

    def compose(self, rows: Sequence[ComposeRow]) -> list[ComposedImage | RowFailure]:
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        return compose_unchanged(rows, self._composer.compose, self._identity)

    def held_loras(self) -> frozenset[str]:
        return self._cache.digests

    def use(self) -> EngineUse:
        stats = self._cache.stats
        return EngineUse(
            lora_hits=stats.hits,
            lora_misses=stats.misses,
            lora_evictions=stats.evictions,
            lora_load_seconds=stats.load_seconds,
            lora_cache_bytes=stats.bytes,
            peak_memory_bytes=_peak_memory_bytes(on_gpu=self._on_gpu),
        )


def _peak_memory_bytes(*, on_gpu: bool) -> int:
    if on_gpu:
        import torch

        return torch.cuda.max_memory_allocated()
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _device_name(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"cpu ({platform.machine()})"


def _versions_json() -> str:
    versions = {name: _version(name) for name in _VERSIONED}
    versions |= {"python": platform.python_version(), "engine": str(ENGINE_VERSION)}
    return json.dumps(versions, sort_keys=True)


def _version(name: str) -> str:
    """Return a package's version; code that was sent to a cluster as files has none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
