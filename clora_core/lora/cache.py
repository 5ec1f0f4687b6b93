"""The LoRA cache: factors of the files used last, up to a budget of bytes.

Keyed by the digest of a file's tensors and strengths, so one LoRA under two names is held once and
a changed file under an old name is read anew.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from clora_core.lora.factors import LoraFactors


@dataclass(frozen=True)
class LoraCacheStats:
    """Counts since the cache was made; ``bytes`` is what it holds now."""

    hits: int = 0
    misses: int = 0
    evictions: int = 0
    bytes: int = 0
    load_seconds: float = 0.0


class LoraCache:
    """Factors by digest, least recently used out first.

    Args:
        max_bytes: Budget. What a single batch needs is held even if it alone is larger.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, LoraFactors] = OrderedDict()
        self._hits = self._misses = self._evictions = 0
        self._load_seconds = 0.0

    @property
    def stats(self) -> LoraCacheStats:
        """What the cache did so far."""
        return LoraCacheStats(
            self._hits, self._misses, self._evictions, self._num_bytes, self._load_seconds
        )

    @property
    def _num_bytes(self) -> int:
        return sum(factors.num_bytes for factors in self._held.values())

    def clear(self) -> None:
        """Let go of everything, as when the model goes that its factors fit; counts go on."""
        self._held.clear()

    def get(self, digest: str, load: Callable[[], LoraFactors]) -> LoraFactors:
        """Return the factors of ``digest``, calling ``load`` if they are not held."""
        if digest in self._held:
            self._hits += 1
            self._held.move_to_end(digest)
            return self._held[digest]
        start = time.perf_counter()
        factors = load()
        self._load_seconds += time.perf_counter() - start
        self._misses += 1
        self._held[digest] = factors
        while self._num_bytes > self._max_bytes and len(self._held) > 1:
            self._held.popitem(last=False)
            self._evictions += 1
        return factors
