"""Runs of units that need the same: what a dealer knows of a plan.

Units are dealt out by base model and then by LoRA set, so an actor loads a base model once and
meets a LoRA set once. There may be millions of units, but neighbours mostly need the same, so a
plan keeps one entry for a run of them and where it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa

from manifests.tables.arrays import one_array
from pipelines.planning.shared_facts import shared_facts

MAX_RUNS_PER_PART = 512
"""Beyond that, neighbours that need different files are one run, known by the first one's needs.

A dealer then cuts where it need not, and nothing else: it asks for needs to read files seldom. Runs
of one attempt and base model stay apart from others, so there may be a few more.
"""


@dataclass(frozen=True)
class UnitNeeds:
    """What making a unit takes.

    Attributes:
        attempt: Of its rows, from 1. What failed before waits for what is new.
        files: Digests of its base model and of all its LoRAs.
    """

    attempt: int
    files: frozenset[str]


@dataclass(frozen=True, order=True)
class DealingOrder:
    """By what units are dealt out. What failed before comes last: new rows should not wait for it.

    A unit that holds the end of one LoRA set and the beginning of the next is between them.
    """

    attempt: int
    base_model_digest: str
    first_set: str
    last_set: str
    width: int
    height: int
    method: str


@dataclass(frozen=True, kw_only=True)
class UnitRun:
    """Units that are neighbours in a part of a plan and need the same; see ``MAX_RUNS_PER_PART``.

    Attributes:
        order: Of the first of them.
        needs: Of the first of them; all are of its attempt and base model.
        part: Number of the part.
        first: Place of the first unit in it.
        num_units: How many there are.
    """

    order: DealingOrder
    needs: UnitNeeds
    part: int
    first: int
    num_units: int


def dealt(rows: pa.Table, part: int) -> tuple[pa.Table, list[UnitRun]]:
    """Return the units of a part in the order that they are dealt in, and its runs.

    Args:
        rows: ``cutting.PLANNED``.
        part: Its number.
    """
    if not len(rows):
        return rows, []
    shared = one_array(rows["shared_json"])
    facts = [shared_facts(text) for text in shared.dictionary.to_pylist()]
    codes = shared.indices.to_numpy(zero_copy_only=False)
    attempts = rows["attempt"].to_numpy()
    starts = unit_starts(rows)
    ids = rows["unit_id"].take(pa.array(starts[:-1])).to_pylist()
    units: list[tuple[DealingOrder, str, int, int]] = []
    for name, (start, end) in zip(ids, pairwise(starts.tolist()), strict=True):
        leader, last = facts[codes[start]], facts[codes[end - 1]]
        order = DealingOrder(
            int(attempts[start]),
            leader.base_model_digest,
            leader.lora_set,
            last.lora_set,
            leader.width,
            leader.height,
            leader.method,
        )
        units.append((order, name, start, end))
    units.sort(key=lambda unit: unit[:2])
    files = [
        frozenset[str]().union(*(facts[code].files for code in set(codes[start:end].tolist())))
        for _, _, start, end in units
    ]
    places = np.concatenate([np.arange(start, end) for _, _, start, end in units])
    return rows.take(pa.array(places)), _runs([unit[0] for unit in units], files, part)


def unit_starts(rows: pa.Table) -> np.ndarray:
    """Return where each unit begins in a table of ``cutting.PLANNED``, and its length last."""
    if not len(rows):
        return np.zeros(1, np.int64)
    # Numbers are compared many times faster than texts.
    codes = rows["unit_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1, [len(rows)]])


def _runs(
    orders: Sequence[DealingOrder], files: Sequence[frozenset[str]], part: int
) -> list[UnitRun]:
    places = list(range(len(orders)))
    alike = [list(run) for _, run in groupby(places, lambda at: (orders[at], files[at]))]
    if len(alike) > MAX_RUNS_PER_PART:
        size = -(-len(places) // MAX_RUNS_PER_PART)
        alike = [
            run[start : start + size]
            for run in (list(run) for _, run in groupby(places, lambda at: _model_of(orders[at])))
            for start in range(0, len(run), size)
        ]
    return [
        UnitRun(
            order=orders[run[0]],
            needs=UnitNeeds(orders[run[0]].attempt, files[run[0]]),
            part=part,
            first=run[0],
            num_units=len(run),
        )
        for run in alike
    ]


def _model_of(order: DealingOrder) -> tuple[int, str]:
    return order.attempt, order.base_model_digest


def in_dealing_order(runs: Iterable[UnitRun]) -> tuple[UnitRun, ...]:
    """Return the runs of all parts in the order that they are dealt in."""
    return tuple(sorted(runs, key=lambda run: (run.order, run.part, run.first)))
