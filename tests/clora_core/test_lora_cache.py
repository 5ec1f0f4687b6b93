"""The LoRA cache: least recently used out first, within a budget of bytes."""

import pytest
import torch

from clora_core.lora.cache import LoraCache, LoraCacheStats
from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.factor import Factor
from clora_core.recipe.errors import LoraFileError


def factors(num_bytes):
    half = torch.zeros(num_bytes // 8)
    return LoraFactors({"unet": {"layer": Factor(half[None], half[:, None], 1.0)}})


def never():
    raise AssertionError("loaded although it was held")


def test_a_held_lora_is_not_loaded_again():
    cache = LoraCache(1000)
    first = cache.get("a", lambda: factors(400))
    assert cache.get("a", never) is first
    stats = cache.stats
    assert (stats.hits, stats.misses, stats.evictions, stats.bytes) == (1, 1, 0, 400)
    assert stats.load_seconds > 0


def test_a_new_cache_has_done_nothing():
    assert LoraCache(1000).stats == LoraCacheStats()


def test_the_least_recently_used_goes_first():
    cache = LoraCache(1000)
    for digest in "ab":
        cache.get(digest, lambda: factors(400))
    cache.get("a", never)
    cache.get("c", lambda: factors(400))
    cache.get("a", never)
    loaded = []
    cache.get("b", lambda: loaded.append("b") or factors(400))
    assert loaded == ["b"]
    assert cache.stats.evictions == 2


def test_the_budget_holds_whatever_comes():
    cache = LoraCache(1000)
    for index in range(20):
        cache.get(str(index), lambda: factors(240))
        assert cache.stats.bytes <= 1000
    assert cache.stats.evictions == 16


def test_a_cleared_cache_holds_nothing_and_counts_on():
    cache = LoraCache(1000)
    cache.get("a", lambda: factors(400))
    cache.clear()
    loaded = []
    cache.get("a", lambda: loaded.append("a") or factors(400))
    assert loaded == ["a"]
    stats = cache.stats
    assert (stats.misses, stats.evictions, stats.bytes) == (2, 0, 400)


def test_a_large_lora_pushes_out_as_many_as_it_needs():
    cache = LoraCache(1000)
    for digest in "abcd":
        cache.get(digest, lambda: factors(240))
    cache.get("large", lambda: factors(720))
    assert (cache.stats.evictions, cache.stats.bytes) == (3, 960)
    cache.get("d", never)


def test_a_lora_larger_than_the_budget_is_held_alone():
    cache = LoraCache(100)
    cache.get("small", lambda: factors(80))
    cache.get("huge", lambda: factors(800))
    assert cache.stats.bytes == 800
    cache.get("huge", never)


def test_a_lora_that_cannot_be_loaded_is_not_held():
    def broken():
        raise LoraFileError("it is truncated")

    cache = LoraCache(1000)
    for _ in range(2):
        with pytest.raises(LoraFileError):
            cache.get("a", broken)
    assert cache.stats.bytes == 0
    assert cache.stats.misses == 0
