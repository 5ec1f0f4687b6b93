"""Which of many committed rows the contact sheet shows, chosen while they pass."""

import hashlib
import heapq

import pyarrow as pa

from pipelines.outputs.contact_sheet import Composition, SheetRow, evenly_chosen

MAX_HELD = 4_096
"""Compositions in memory. Of more, those with the lowest hashes stand for all."""

_COLUMNS = ["key", "unit_id", "prompt", "lora_names", "seed", "method", "width", "height"]


class SheetChoice:
    """Holds compositions, each with a row of every method that made it.

    Whether a composition is held depends on it alone, and of equal rows the one of the lowest key
    is, so the choice does not depend on the order of rows.
    """

    def __init__(self) -> None:
        self._held: dict[Composition, dict[str, SheetRow]] = {}
        self._limit = b"\xff" * 9

    def add(self, rows: pa.Table) -> None:
        """Consider rows with the columns of ``listed_rows.LISTED``."""
        for row in rows.select(_COLUMNS).to_pylist():
            names = tuple(row["lora_names"])
            composition = (row["prompt"], names, row["seed"], row["width"], row["height"])
            methods = self._held.get(composition)
            if methods is None:
                if len(self._held) >= 2 * MAX_HELD:
                    self._let_go()
                if _hash(composition) >= self._limit:
                    continue
                methods = self._held.setdefault(composition, {})
            former = methods.get(row["method"])
            if former is None or row["key"] < former["key"]:
                methods[row["method"]] = row

    def chosen(self) -> list[SheetRow]:
        """Return the rows of the sheet: key and unit_id of each."""
        self._let_go()
        return [row for _, methods in evenly_chosen(self._held) for row in methods.values()]

    def _let_go(self) -> None:
        """Keep the compositions of the lowest hashes."""
        if len(self._held) > MAX_HELD:
            *kept, last = heapq.nsmallest(MAX_HELD + 1, self._held, key=_hash)
            self._limit = _hash(last)
            self._held = {composition: self._held[composition] for composition in kept}


def _hash(composition: Composition) -> bytes:
    return hashlib.blake2b(repr(composition).encode(), digest_size=8).digest()
