"""Ranks: what rows are sorted by, as numbers, so that a million rows are sorted as arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from clora_core.recipe.first_phase import FirstPhase


def ranks(codes: Mapping[Any, int]) -> np.ndarray:
    """Return where each code's value stands among the sorted values [code].

    Args:
        codes: A number from 0 on for each value.
    """
    found = np.zeros(len(codes), np.int64)
    for rank, value in enumerate(sorted(codes)):
        found[codes[value]] = rank
    return found


class PhaseRanks:
    """Collects the first phases of rows; rows without one stand before those with one."""

    def __init__(self) -> None:
        # Many rows differ in nothing but the seed, so texts are kept once.
        self._texts: dict[tuple[object, ...], int] = {}
        self._places: list[int] = []
        self._text_codes: list[int] = []
        self._seeds: list[int] = []

    def add(self, place: int, phase: FirstPhase) -> None:
        """Note the phase of the row at ``place``."""
        self._places.append(place)
        self._text_codes.append(self._texts.setdefault(phase[:-1], len(self._texts)))
        self._seeds.append(phase.seed)

    def ranks(self, num_rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Return each row's rank by text, 0 where there is no phase, and its seed [row].

        Rows have an equal phase exactly where both are equal and the first is not 0.
        """
        texts, seeds = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
        if self._places:
            texts[self._places] = ranks(self._texts)[self._text_codes] + 1
            seeds[self._places] = self._seeds
        return texts, seeds
