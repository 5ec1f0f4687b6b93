"""Planning: which rows are still to be made, cut into units.

A unit is what one actor makes at a time and what is committed at once, so its id is the hash of its
row keys and attempts, and cutting obeys two rules.

*Like with like.* A unit holds rows of one base model, method, size, settings and number of
concepts, which the composer makes in one batch. Within that, rows are sorted by LoRA set. Units are
dealt out by base model and then by LoRA set, so an actor loads a base model once and meets a LoRA
set once; hot sets span units, tiny ones share one.

Rows of a method with a first phase, which rows of one batch share, are sorted by that phase and
then by LoRA set. A unit is one batch, and units stay full: a border may divide the rows of a phase,
which is then made once on each side.

*A later plan never cuts across an earlier one.* Rows are cut by count from sorted groups, so taking
whole committed units away leaves the borders of the others where they were; and rows that failed
stay with those they failed with. Hence a worker that outlives its driver can only commit a unit
that the next run knows by the same id, where one of the two loses (``tests`` hold this property).
Where the manifest or the size of units was changed in between, ``seal`` sees to it.

Pure; the order of the manifest's rows changes nothing but which of several equal rows gives its
``row_id``. Rows are looked at one at a time; what is kept of each is its key and a few numbers.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clora_core.recipe.first_phase import first_phase, has_first_phase
from clora_core.recipe.key import sampler_json
from clora_core.recipe.row import Lora, Row
from pipelines.ledger.ledger import FailedRow
from pipelines.planning.plan import Plan
from pipelines.planning.ranks import PhaseRanks, ranks

_ROWS_PER_CHUNK = 8192


class _Group(NamedTuple):
    """What the rows of one unit have in common; sorts as units are cut."""

    failed_with: str
    attempt: int
    block: str
    base_model_digest: str
    num_concepts: int
    width: int
    height: int
    method: str
    sampler_json: str
    text_chunks: int


class _Loras(NamedTuple):
    """What planning asks of a row's LoRAs; worked out once for all rows that share them."""

    num_concepts: int
    digests: str
    is_unusable: bool


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """Rows to be made, as arrays [row]: places, keys, and ranks of what they are sorted by."""

    places: np.ndarray
    keys: np.ndarray
    groups: np.ndarray
    phase_texts: np.ndarray
    phase_seeds: np.ndarray
    digests: np.ndarray
    group_values: list[_Group]
    num_unusable: int


def plan_units(
    rows: Sequence[Row],
    *,
    made: Collection[str],
    failed: Mapping[str, FailedRow],
    rows_per_unit: int,
    attempts: int | None,
    abandoned: Collection[str] = frozenset(),
    block_of: Callable[[Row], str] | None = None,
) -> Plan:
    """Return the units that make every row which is not made and has not failed too often.

    Args:
        rows: The whole manifest.
        made: Keys of committed rows, of this manifest or any other.
        failed: Rows without an image, by key.
        rows_per_unit: Most rows in a unit. More fills batches better and loses more on a kill.
        attempts: A row that failed so often is left alone; None tries all again.
        abandoned: Unit ids that must not be used again, see ``seal``.
        block_of: Names the block of a row: one unit's rows are all of one block. With
            ``rows_per_unit`` as large as a block, units do not depend on what else is planned.
    """
    first = _first_of_each_key(rows)
    quarantined: list[str] = []
    pending, num_already_made = _pending(rows, first, made, failed, attempts, quarantined, block_of)
    order = np.lexsort(
        (
            pending.keys,
            pending.digests,
            pending.phase_seeds,
            pending.phase_texts,
            pending.groups,
        )
    )
    groups = pending.groups[order]
    borders = np.append(_unit_starts(groups, rows_per_unit), len(order))
    row_attempts = np.array([group.attempt for group in pending.group_values], np.int32)[groups]
    keys = pending.keys[order]
    places = pending.places[order]
    sets = pending.digests[order]
    spans = list(zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True))
    ids = [
        _unit_id(keys[start:end].astype(str).tolist(), int(row_attempts[start]), abandoned)
        for start, end in spans
    ]

    def dealt(number: int) -> tuple[int, str, int, int, int, int, str, str]:
        # Rows that failed before come last: what is new should not wait for what may fail again.
        # A unit that holds the end of one LoRA set and the beginning of the next lies between them.
        start, end = spans[number]
        leader = rows[int(places[start])]
        return (
            int(row_attempts[start]),
            leader.base_model_digest,
            int(sets[start]),
            int(sets[end - 1]),
            leader.width,
            leader.height,
            leader.method,
            ids[number],
        )

    dealing = sorted(range(len(spans)), key=dealt)
    lengths = [spans[number][1] - spans[number][0] for number in dealing]
    inner = np.concatenate(
        [np.arange(0), *(np.arange(*spans[number]) for number in dealing)], dtype=np.int64
    )
    return Plan(
        rows=rows,
        order=places[inner],
        attempts=row_attempts[inner],
        starts=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        unit_ids=tuple(ids[number] for number in dealing),
        num_duplicates=len(rows) - len(first),
        num_already_made=num_already_made,
        num_unusable=pending.num_unusable,
        quarantined=tuple(sorted(quarantined)),
    )


def _first_of_each_key(rows: Sequence[Row]) -> np.ndarray:
    """Return the place of the first row of each key, ascending [row]."""
    chunks = [np.array([], "S1")]
    pending: list[str] = []
    for row in rows:
        pending.append(row.key)
        if len(pending) == _ROWS_PER_CHUNK:
            chunks.append(np.array(pending, np.bytes_))
            pending.clear()
    chunks.append(np.array(pending, np.bytes_))
    _, first = np.unique(np.concatenate(chunks), return_index=True)
    return np.sort(first)


def _pending(
    rows: Sequence[Row],
    first: np.ndarray,
    made: Collection[str],
    failed: Mapping[str, FailedRow],
    attempts: int | None,
    quarantined: list[str],
    block_of: Callable[[Row], str] | None,
) -> tuple[_Pending, int]:
    """Return what is to be made and how much is made already; adds to ``quarantined``."""
    is_first = np.zeros(len(rows), bool)
    is_first[first] = True
    known: dict[tuple[Lora, ...], _Loras] = {}
    group_codes: dict[_Group, int] = {}
    digest_codes: dict[str, int] = {}
    has_phase: list[bool] = []  # [group code]
    phases = PhaseRanks()
    places: list[int] = []
    groups: list[int] = []
    digests: list[int] = []
    key_chunks = [np.array([], "S1")]
    keys: list[str] = []
    num_made = num_unusable = 0
    for place, row in enumerate(rows):
        if not is_first[place]:
            continue
        if row.key in made:
            num_made += 1
            continue
        failure = failed.get(row.key)
        attempt = 1 + failure.attempts if failure else 1
        if attempts is not None and attempt > attempts:
            quarantined.append(row.key)
            continue
        loras = known.get(row.loras)
        if loras is None:
            loras = known[row.loras] = _described(row.loras)
        group = _Group(
            failure.unit_id if failure else "",
            attempt,
            block_of(row) if block_of else "",
            row.base_model_digest,
            loras.num_concepts,
            row.width,
            row.height,
            row.method,
            sampler_json(row.sampler),
            row.text_chunks or 1,
        )
        group_code = group_codes.setdefault(group, len(group_codes))
        if group_code == len(has_phase):
            has_phase.append(has_first_phase(row.method, row.sampler))
        if has_phase[group_code] and (phase := first_phase(row)) is not None:
            phases.add(len(places), phase)
        places.append(place)
        groups.append(group_code)
        digests.append(digest_codes.setdefault(loras.digests, len(digest_codes)))
        num_unusable += loras.is_unusable
        keys.append(row.key)
        if len(keys) == _ROWS_PER_CHUNK:
            key_chunks.append(np.array(keys, np.bytes_))
            keys.clear()
    key_chunks.append(np.array(keys, np.bytes_))
    phase_texts, phase_seeds = phases.ranks(len(places))
    pending = _Pending(
        places=np.array(places, np.int64),
        keys=np.concatenate(key_chunks),
        groups=ranks(group_codes)[np.array(groups, np.int64)],
        phase_texts=phase_texts,
        phase_seeds=phase_seeds,
        digests=ranks(digest_codes)[np.array(digests, np.int64)],
        group_values=sorted(group_codes),
        num_unusable=num_unusable,
    )
    return pending, num_made


def _described(loras: tuple[Lora, ...]) -> _Loras:
    return _Loras(
        num_concepts=sum(lora.kind == "concept" for lora in loras),
        digests=" ".join(sorted(lora.digest for lora in loras)),
        is_unusable=any(lora.problem for lora in loras),
    )


def _unit_starts(groups: np.ndarray, rows_per_unit: int) -> np.ndarray:
    """Return the index of each unit's first row: every ``rows_per_unit``-th row of each group."""
    if not len(groups):
        return np.array([], np.int64)
    index = np.arange(len(groups))
    is_group_start = np.append(True, groups[1:] != groups[:-1])
    group_start = np.maximum.accumulate(np.where(is_group_start, index, 0))
    return np.flatnonzero((index - group_start) % rows_per_unit == 0)


def _unit_id(keys: list[str], attempt: int, abandoned: Collection[str]) -> str:
    text = "\n".join(f"{key} {attempt}" for key in sorted(keys))
    unit_id = hashlib.sha256(text.encode()).hexdigest()
    while unit_id in abandoned:
        unit_id = hashlib.sha256(unit_id.encode()).hexdigest()
    return unit_id
