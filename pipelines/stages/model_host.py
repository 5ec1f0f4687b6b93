"""The model host of an actor: one base model at a time in memory, a LoRA cache, the composer.

Actors are given a ``ModelHostSource``, a small value that can be sent anywhere, and build the host
from it where they run. Tests give a source of their own; that is the only seam. A base model is
loaded when the first unit needs it, and goes before another comes: two rarely fit one GPU.
"""

import gc
import json
import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Protocol

from clora_core.recipe.config import ENGINE_VERSION
from clora_core.recipe.errors import FusionError
from clora_core.recipe.fusion import Fusion
from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from manifests.places.folder_cache import local_folder
from pipelines.session.resources import Resources
from pipelines.session.shares import Shares
from pipelines.stages.fused_work import FusedFile, FusionWork, ReadReference
from pipelines.stages.lora_identity import LoraIdentity, compose_unchanged
from pipelines.units.message import HostUse

if TYPE_CHECKING:
    from clora_core.composer import Composer
    from clora_core.lora.cache import LoraCache

_VERSIONED = ("clora-batch", "torch", "diffusers", "transformers", "numpy")


class ModelHost(Protocol):
    """What the generate stage needs of a model host."""

    device: str
    versions_json: str

    def hold(self, base_model_digest: str) -> None:
        """See to it that rows are made with this base model; what goes wrong is raised."""
        ...

    def compose(self, rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        """Return one result per row, in order, by the held model; a machine's fault is raised."""
        ...

    def fuse(self, fusion: Fusion, read_reference: ReadReference) -> FusedFile:
        """Return the adapter's file, made with the held model; a row's fault is raised, too."""
        ...

    def use(self) -> HostUse:
        """Return the counters."""
        ...


LoadModelHost = Callable[[Shares], ModelHost]
"""Makes a model host where an actor runs, of what the stages may use there."""


@dataclass(frozen=True, kw_only=True)
class ModelHostSource:
    """Where a model host comes from.

    Attributes:
        base_model_dirs: Folders in diffusers' format, by the digest of what is in them: paths that
            every machine has, or URIs.
        resources: What a host may use, and the numbers it computes with.
    """

    base_model_dirs: Mapping[str, str]
    resources: Resources

    def __call__(self, shares: Shares) -> ModelHost:
        """Return a host that holds no base model yet."""
        import torch

        from clora_core.lora.cache import LoraCache

        if shares.generator_threads is not None:
            torch.set_num_threads(shares.generator_threads)
        on_gpu = shares.generator_gpus > 0
        device_bytes = self.resources.lora_device_bytes if on_gpu else 0
        second = LoraCache(device_bytes) if device_bytes else None
        return _OneModelHost(
            self, LoraCache(self.resources.lora_cache_bytes), second, on_gpu=on_gpu
        )


class _OneModelHost:
    def __init__(
        self,
        source: ModelHostSource,
        cache: "LoraCache",
        device_cache: "LoraCache | None",
        *,
        on_gpu: bool,
    ) -> None:
        self._source = source
        self._cache = cache
        self._device_cache = device_cache
        self._identity = LoraIdentity()
        self._held: tuple[str, Composer, FusionWork] | None = None
        self._model_loads = 0
        self._model_load_seconds = 0.0
        self._on_gpu = on_gpu
        self._device = "cuda" if on_gpu else "cpu"
        self.device = f"{_device_name(self._device)} {source.resources.dtype}"
        self.versions_json = _versions_json()

    def hold(self, base_model_digest: str) -> None:
        if self._held is not None and self._held[0] == base_model_digest:
            return
        start = time.perf_counter()
        self._let_go()
        self._held = (base_model_digest, *self._load(base_model_digest))
        self._model_loads += 1
        self._model_load_seconds += time.perf_counter() - start

    def _load(self, base_model_digest: str) -> "tuple[Composer, FusionWork]":
        from clora_core.composer import Composer
        from clora_core.diffusion.model import load_base_model

        folder = local_folder(self._source.base_model_dirs[base_model_digest])
        resources = self._source.resources
        model = load_base_model(folder, dtype=resources.dtype, device=self._device)
        composer = Composer(
            model, self._cache, device_loras=self._device_cache, max_lanes=resources.max_lanes
        )
        return composer, FusionWork(
            model,
            composer,
            dtype=resources.dtype,
            identity=self._identity,
            versions_json=self.versions_json,
        )

    def _let_go(self) -> None:
        """Give the memory of the model back, and of LoRAs, whose factors fit that model alone."""
        if self._held is None:
            return
        self._held = None
        for cache in (self._cache, self._device_cache):
            if cache is not None:
                cache.clear()
        gc.collect()  # a model's parts refer to each other in circles
        if self._on_gpu:
            import torch

            torch.cuda.empty_cache()

    def compose(self, rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        _, composer, _ = self._begun()
        return compose_unchanged(rows, composer.compose, self._identity)

    def fuse(self, fusion: Fusion, read_reference: ReadReference) -> FusedFile:
        import torch

        _, _, work = self._begun()
        try:
            return work.fuse(fusion, read_reference)
        except torch.OutOfMemoryError:
            pass
        # Outside the handler: the traceback held the failed try's tensors until here.
        if self._device_cache is not None:
            self._device_cache.clear()
        torch.cuda.empty_cache()
        try:
            return work.fuse(fusion, read_reference)
        except torch.OutOfMemoryError as error:
            raise FusionError(
                f"{fusion.adapter_name} needs more memory than {self.device} has, with nothing "
                "else in it; fuse it on a larger device, or use a method that fuses nothing"
            ) from error

    def _begun(self) -> "tuple[str, Composer, FusionWork]":
        """Return what is held, the peak of its memory set back."""
        if self._held is None:
            raise RuntimeError("no base model is held")
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        return self._held

    def use(self) -> HostUse:
        stats = self._cache.stats
        on_device = None if self._device_cache is None else self._device_cache.stats
        return HostUse(
            model_loads=self._model_loads,
            model_load_seconds=self._model_load_seconds,
            lora_hits=stats.hits + (on_device.hits if on_device else 0),
            lora_misses=stats.misses,
            lora_evictions=stats.evictions,
            lora_load_seconds=stats.load_seconds,
            lora_cache_bytes=stats.bytes,
            lora_copies=on_device.misses if on_device else 0,
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
