"""A thousand small files, each of another trainer, kind, precision, rank and layers, for a fuzz."""

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from adapters.case import DTYPES, AdapterCase, Components, Expected, Layer
from adapters.cases import BY_NAME, CASES

_RANKS = (2, 4, 8)
_FLOATS = ("F32", "F16", "BF16")
_MOST_NUMBERS = 30_000
"""In the weight of a layer; a full difference has as many."""


def many_cases(components: Components, *, count: int, seed: int = 0) -> Iterator[AdapterCase]:
    """Yield cases for a Stable Diffusion 1.5, the same ones for the same seed.

    Args:
        components: Of the base model.
        count: How many.
        seed: Of the choice.
    """
    possible = [case for case in CASES if case.family == "sd15" and case.dtype == "F32"]
    for number in range(count):
        source = random.Random(f"{seed}/{number}")
        case = possible[number % len(possible)] if number < len(possible) else None
        case = case or source.choice(possible)
        is_peft = case.trainer in ("peft", "diffusers scripts")
        case = replace(
            case,
            dtype=source.choice(_FLOATS if is_peft else list(DTYPES)),
            rank=source.choice(_RANKS),
            seed=source.randrange(2**32),
        )
        layers = _small(BY_NAME[case.trainer].layers(case, components))
        layers = source.sample(layers, min(len(layers), source.randrange(1, 4)))
        yield replace(case, places=tuple(sorted(layer.place for layer in layers)))


def _small(layers: list[Layer]) -> list[Layer]:
    """Return the small ones, or the smallest of all if none is."""
    by_size = sorted(layers, key=lambda layer: (layer.module.weight.numel(), layer.place))
    small = [layer for layer in by_size if layer.module.weight.numel() <= _MOST_NUMBERS]
    return small or by_size[:1]


def write_many(
    folder: Path, components: Components, *, count: int = 1000, seed: int = 0, first: int = 0
) -> Iterator[tuple[AdapterCase, Expected]]:
    """Write ``count`` files of some KB, each into a numbered folder, and yield them as they come.

    In 8 bits the smallest factors may all be 0, and then a file has no effect.

    Args:
        folder: For the folders.
        components: Of a Stable Diffusion 1.5, such as the embedded world's base model.
        count: How many.
        seed: Of the choice.
        first: Number of the first.
    """
    cases = many_cases(components, count=first + count, seed=seed)
    for number, case in islice(enumerate(cases), first, None):
        place = folder / f"{number:05}"
        place.mkdir()
        yield case, BY_NAME[case.trainer].write(place, case, components)
