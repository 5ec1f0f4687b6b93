"""A sampler that sleeps and writes down when: what is left of a run's time is the engine's."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clora_core.lora.cache import LoraCache
from clora_core.lora.factors import LoraFactors
from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, Diagnostics, RowFailure
from pipelines.session.shares import Shares
from pipelines.units.message import HostUse

__all__ = ["Call", "SleepingSource", "calls"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the sampler: seconds since 1970."""

    start_s: float
    end_s: float


def calls(log: Path) -> list[Call]:
    """Return the calls that engines wrote to ``log``."""
    spans = (line.split() for line in log.read_text().splitlines())
    return [Call(start_s=float(start), end_s=float(end)) for start, end in spans]


@dataclass(frozen=True, kw_only=True)
class SleepingSource:
    """Where actors get a sleeping engine.

    Attributes:
        log: Gets a line for each call.
        seconds_a_row: How long a row takes.
        seconds_a_load: How long reading a LoRA takes.
        max_loras: LoRAs that an actor's cache holds.
    """

    log: Path
    seconds_a_row: float
    seconds_a_load: float = 0.0
    max_loras: int = 4

    def __call__(self, _shares: Shares | None = None) -> "SleepingEngine":
        """Return the engine."""
        return SleepingEngine(self)


class SleepingEngine:
    """Black images of the asked size, LoRAs through the product's own cache."""

    device = "asleep"
    versions_json = "{}"

    def __init__(self, source: SleepingSource) -> None:
        self._source = source
        self._cache = LoraCache(source.max_loras)

    def hold(self, base_model_digest: str) -> None:
        """There is no model."""

    def compose(self, rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        """Sleep for as long as the rows take."""
        start = time.time()
        for digest in sorted({lora.digest for row in rows for lora in row.loras}):
            self._cache.get(digest, self._load)
        time.sleep(self._source.seconds_a_row * len(rows))
        # One write a call, so that processes do not cut each other's lines.
        with self._source.log.open("a") as file:
            file.write(f"{start} {time.time()}\n")
        return [_image(row, len(rows)) for row in rows]

    def use(self) -> HostUse:
        """Return the cache's counters."""
        stats = self._cache.stats
        return HostUse(
            lora_hits=stats.hits, lora_misses=stats.misses, lora_evictions=stats.evictions
        )

    def _load(self) -> LoraFactors:
        time.sleep(self._source.seconds_a_load)
        return _OneByte({})


class _OneByte(LoraFactors):
    """Factors of size one, so that the cache's budget counts LoRAs."""

    @property
    def num_bytes(self) -> int:
        return 1


def _image(row: Row, batch_size: int) -> ComposedImage:
    return ComposedImage(
        image=np.zeros((row.height, row.width, 3), np.uint8),
        diagnostics=Diagnostics(
            unet_evaluations=0, seconds=0.0, batch_size=batch_size, batch_slot=0
        ),
    )
