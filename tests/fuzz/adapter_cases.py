"""The whole corpus of adapters, read with its exact effects: what the tests do to a part of it."""

import copy
import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from adapters.case import Components, Family
from adapters.cases import CASES, write_case
from adapters.layers import read_components
from oracles.adapter_effects import assert_effects
from oracles.tiny_models import build_tiny_sd, build_tiny_sdxl

from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError


def read_corpus(first: int, num_cases: int, *, seed: int, folder: Path) -> Counter[str]:  # noqa: ARG001
    """Return how many cases from the number ``first`` on are read, and how many refused.

    Raises:
        AssertionError: A file does something else than its trainer's own code.
    """
    counts: Counter[str] = Counter()
    single, double = _models(folder)
    for number, case in enumerate(CASES[first : first + num_cases], first):
        place = folder / str(number)
        place.mkdir()
        expected = write_case(place, case, single[case.family])
        try:
            lora = read_lora(expected.path, lora_targets(single[case.family]))
        except LoraFileError:
            counts[f"{case.kind} refused"] += 1
        else:
            assert_effects(lora, expected, double[case.family])
            counts["read"] += 1
        expected.path.unlink()
    return counts


@functools.cache
def _models(folder: Path) -> tuple[Mapping[Family, Components], Mapping[Family, Components]]:
    """Return the tiny models in single precision, as files are written for, and in double."""
    single: dict[Family, Components] = {
        "sd15": read_components(build_tiny_sd(folder / "sd15")),
        "sdxl": read_components(build_tiny_sdxl(folder / "sdxl")),
    }
    double = {
        family: {name: copy.deepcopy(model).double() for name, model in components.items()}
        for family, components in single.items()
    }
    return single, double
