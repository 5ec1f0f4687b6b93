"""Which rows are still to be made, and the order that units are cut in.

A unit holds rows of one base model, method, size, settings and number of concepts, which the
composer makes in one batch; rows that failed stay with those that they failed with. All that these
have in common is a row's *group*. Within a group, rows of a method whose batches share a first
phase are sorted by that phase, and then all rows by LoRA set and key. The whole order is one text,
so that rows can be sorted anywhere.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from clora_core.recipe.first_phase import FirstPhase, first_phase
from clora_core.recipe.row import Row
from manifests.rows.checked_rows import CHECKED, rows_of_checked
from manifests.tables.arrays import compacted, one_array, one_chunk
from manifests.tables.arrow_functions import arrow
from pipelines.planning.shared_facts import SharedFacts, shared_facts

GROUP_CHARACTERS = 32
_SEPARATOR = "\0"

PLACES = pa.schema([("place", pa.int64()), ("key", pa.string())])
"""A row by its place in the manifest."""

KEYS = pa.schema([("key", pa.string())])
FAILURES = pa.schema([("key", pa.string()), ("attempt", pa.int32()), ("unit_id", pa.string())])
"""Rows without an image: how often they were tried, and in which unit last."""

ATTEMPTS = pa.schema([("place", pa.int64()), ("attempt", pa.int32()), ("failed_with", pa.string())])
"""A row to be made: its coming attempt, from 1, and the unit that it failed in, empty for none."""

ORDERED = pa.schema([*CHECKED, ("attempt", pa.int32()), ("order", pa.string())])
"""A row to be made; ``order`` begins with its group."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is planned, beside the rows.

    Attributes:
        attempts: A row that failed so often is left alone; None tries all again.
        only_failed: Only what failed, and what was not asked for before.
        block_of: Names the block of a row: one unit's rows are all of one block.
    """

    attempts: int | None
    only_failed: bool = False
    block_of: Callable[[Row], str] | None = None


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What is to be made of the rows of a partition.

    Attributes:
        rows: Those to be made (``ATTEMPTS``).
        num_rows: All that were asked for.
        num_duplicates: Rows whose key an earlier row has.
        num_already_made: Distinct rows that are committed.
        quarantined: Keys that failed too often to be tried again.
    """

    rows: pa.Table
    num_rows: int
    num_duplicates: int
    num_already_made: int
    quarantined: tuple[str, ...]


def pending_rows(
    rows: pa.Table,
    *,
    made: pa.Table,
    failures: pa.Table,
    rules: Rules,
    asked_before: pa.Table | None = None,
) -> Pending:
    """Return what is to be made of one partition of the keys.

    Args:
        rows: All of its rows (``PLACES``, among others), in any order.
        made: Keys of it that have an image, and perhaps others (``KEYS``).
        failures: Rows without one, and perhaps others (``FAILURES``), a key once.
        rules: What else decides.
        asked_before: Keys that the last run of the whole manifest was asked for; None if nobody
            knows, and then nothing counts as new. Read with ``only_failed`` alone.
    """
    rows = one_chunk(rows.select(PLACES.names)).sort_by("place")
    if rules.only_failed:
        is_wanted = arrow.is_in(rows["key"], value_set=failures["key"])
        if asked_before is not None:
            is_new = arrow.invert(arrow.is_in(rows["key"], value_set=asked_before["key"]))
            is_wanted = arrow.or_(is_wanted, is_new)
        rows = rows.filter(is_wanted)
    distinct = rows.take(_first_of_each(rows["key"]))
    left = distinct.filter(arrow.invert(arrow.is_in(distinct["key"], value_set=made["key"])))
    failure = arrow.index_in(left["key"], value_set=failures["key"])
    attempt = arrow.add(
        arrow.fill_null(failures["attempt"].take(failure), 0), pa.scalar(1, pa.int32())
    )
    failed_with = arrow.fill_null(failures["unit_id"].take(failure), "")
    found = pa.table([left["place"], attempt, failed_with], schema=ATTEMPTS)
    quarantined = pa.array([], pa.string())
    if rules.attempts is not None:
        is_tried = arrow.less_equal(attempt, rules.attempts)
        quarantined = left["key"].filter(arrow.invert(is_tried))
        found = found.filter(is_tried)
    return Pending(
        rows=found,
        num_rows=len(rows),
        num_duplicates=len(rows) - len(distinct),
        num_already_made=len(distinct) - len(left),
        quarantined=tuple(quarantined.to_pylist()),
    )


def ordered_rows(rows: pa.Table, attempts: pa.Table, rules: Rules) -> tuple[pa.Table, int]:
    """Return rows to be made with their order (``ORDERED``), and how many of them are unusable.

    These name a LoRA file that cannot be used; they are planned, and fail.

    Args:
        rows: Rows (``CHECKED``).
        attempts: Of each of them (``ATTEMPTS``), in the same order.
        rules: What else decides.
    """
    rows = compacted(rows)
    shared = one_array(rows["shared_json"])
    facts = [shared_facts(text) for text in shared.dictionary.to_pylist()]
    codes = shared.indices.to_numpy(zero_copy_only=False)
    attempt = one_array(attempts["attempt"])
    order = _order(rows, codes, facts, attempt, one_array(attempts["failed_with"]), rules.block_of)
    is_unusable = np.array([each.is_unusable for each in facts], bool)
    num_unusable = int(is_unusable[codes].sum()) if facts else 0
    return pa.table([*rows.columns, attempt, order], schema=ORDERED), num_unusable


def _first_of_each(keys: pa.ChunkedArray) -> pa.Array:
    """Return the place of the first row of each key, ascending."""
    codes = one_array(keys).dictionary_encode().indices.to_numpy(zero_copy_only=False)
    _, first = np.unique(codes, return_index=True)
    return pa.array(np.sort(first))


def _order(
    rows: pa.Table,
    codes: np.ndarray,
    facts: Sequence[SharedFacts],
    attempt: pa.Array,
    failed_with: pa.Array,
    block_of: Callable[[Row], str] | None,
) -> pa.Array:
    """Return the text that each row is sorted by [row]."""
    if not len(rows):
        return pa.array([], pa.string())
    together = failed_with
    if block_of is not None:
        blocks = pa.array(map(block_of, rows_of_checked(rows)), pa.string())
        together = arrow.binary_join_element_wise(together, blocks, _SEPARATOR)
    encoded = together.dictionary_encode()
    kinds = np.stack(
        [
            codes,
            arrow.fill_null(rows["text_chunks"], 1).to_numpy(),
            attempt.to_numpy(zero_copy_only=False),
            encoded.indices.to_numpy(zero_copy_only=False),
        ],
        axis=1,
    )
    distinct, kind_of = np.unique(kinds, axis=0, return_inverse=True)
    names = encoded.dictionary.to_pylist()
    groups = [
        _group(facts[code], chunks, tried, names[name])
        for code, chunks, tried, name in distinct.tolist()
    ]
    sets = pa.array([each.lora_set for each in facts], pa.string())
    return arrow.binary_join_element_wise(
        pa.array(groups, pa.string()).take(pa.array(kind_of.ravel())),
        _phases(rows, codes, facts),
        sets.take(pa.array(codes)),
        one_array(rows["key"]),
        _SEPARATOR,
    )


def _group(facts: SharedFacts, text_chunks: int, attempt: int, together: str) -> str:
    parts = (
        together, attempt, facts.base_model_digest, facts.num_concepts, facts.width, facts.height,
        facts.method, facts.sampler_json, text_chunks,
    )  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:GROUP_CHARACTERS]


def _phases(rows: pa.Table, codes: np.ndarray, facts: Sequence[SharedFacts]) -> pa.Array:
    """Return the first phase of each row as a text that sorts; empty where there is none [row]."""
    texts = np.full(len(rows), "", object)
    has_phase = np.array([each.has_first_phase for each in facts], bool)[codes]
    places = np.flatnonzero(has_phase)
    for place, row in zip(
        places.tolist(), rows_of_checked(rows.take(pa.array(places))), strict=True
    ):
        phase = first_phase(row)
        texts[place] = "" if phase is None else _phase_text(phase)
    return pa.array(texts, pa.string())


def _phase_text(phase: FirstPhase) -> str:
    spans = " ".join(f"{start:06} {end:06}" for start, end in phase.subjects)
    rest = json.dumps([phase.prompt.weights, phase.prompt.breaks])
    parts = phase.prompt.words, rest, spans, phase.negative_prompt, f"{phase.seed:020}"
    return "\1".join(parts)
