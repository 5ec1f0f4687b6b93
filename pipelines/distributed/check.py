"""A manifest read and checked by Ray Data: its parts side by side, each as one process does it.

What concerns rows of several parts is settled afterwards: ids that stand for two rows, by a shuffle
of the ids, and names of columns, which are read in the light of all rows before them in a file.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from ray import data
from ray.data import ActorPoolStrategy

from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.locations import LocationError
from manifests.rows.bulk.findings import NamedColumns, named_again
from manifests.rows.check import (
    ID_PARTITIONS,
    OF_IDS,
    OF_NAMES,
    OF_ROWS,
    CheckedManifest,
    check_manifest,
    ordered_problems,
)  # fmt: skip
from manifests.rows.checked_rows import CHECKED
from manifests.rows.columns import ColumnNames
from manifests.rows.id_check import IDS, id_partitions, id_problems
from manifests.rows.rules import RowRules
from manifests.rows.stored_rows import StoredRows
from manifests.rows.table_check import TableChecker
from manifests.tables.splits import Split, manifest_splits, split_tables
from manifests.text.problems import Problem
from pipelines.distributed.messages import (
    BATCHES,
    dealt,
    message,
    messages,
    of_kind,
    tables_of,
)  # fmt: skip
from pipelines.distributed.rows import CHUNK_BITS, ClusterRows, chunk_number
from pipelines.distributed.session import facts_in, finished, num_workers, ray_data

CHUNK_ROWS = 65_536
"""Of one message; some thousand more, because rows come in batches."""


@dataclass(frozen=True, kw_only=True)
class FoundInSplit:
    """What the check of a part of a manifest found beside rows and ids.

    Attributes:
        problems: Each with its place, what it is of, and itself.
        named: Columns that rows give, as they were understood without the rows before.
        left_out: In how many rows a column held the number of its row and nothing else.
        chunks: Number and rows of each chunk.
        broken: LoRA files that cannot be used, by name, and why.
        seen: What each LoRA file was that was looked at, by name.
    """

    problems: tuple[tuple[int, int, Problem], ...]
    named: tuple[NamedColumns, ...]
    left_out: Mapping[str, int]
    chunks: tuple[tuple[int, int], ...]
    broken: tuple[tuple[str, str], ...]
    seen: Mapping[str, str]


def check_on_ray(
    uri: str, rules: RowRules, *, allowed: AllowedRoots = EVERYWHERE, place: str | None = None
) -> CheckedManifest:
    """Return what ``check_manifest`` returns; the rows stay on the cluster.

    Args:
        uri: As there, and so are all others; the files are read by all machines.
        rules: As there.
        allowed: As there.
        place: As there.

    Raises:
        ClusterError: The cluster has no room, or lost what it held.
    """
    with ray_data("checked"):
        splits = manifest_splits(uri, allowed=allowed)
        parts = [
            pa.table({"number": [number], "place": [number]})
            for number, split in enumerate(splits)
            if isinstance(split, Split)
        ]
        if not parts:
            return check_manifest(uri, rules, allowed=allowed, place=place)
        checked = finished(
            data.from_arrow(parts).map_batches(
                _CheckSplits,
                fn_constructor_kwargs={"rules": rules, "splits": splits},
                compute=ActorPoolStrategy(size=min(len(parts), num_workers())),
                num_cpus=1,
                **BATCHES,
            )
        )
        found = dict(facts_in(checked, "found"))
        if not _saw_the_same(found.values()):
            # A file, or a branch of the hub, changed meanwhile.
            return check_manifest(uri, rules, allowed=allowed, place=place)
        problems = [problem for each in found.values() for problem in each.problems]
        problems += [
            (chunk_number(number, 0) << CHUNK_BITS, OF_ROWS, split)
            for number, split in enumerate(splits)
            if isinstance(split, Problem)
        ]
        names = ColumnNames()
        for number in sorted(found):
            again = named_again(found[number].named, names)
            if [each.verdict for each in again] != [each.verdict for each in found[number].named]:
                # A column was taken for something else than in the light of all rows before it.
                return check_manifest(uri, rules, allowed=allowed, place=place)
            problems += [
                (each.place, OF_NAMES, problem) for each in again for problem in each.problems
            ]
        problems += _id_problems(checked)
    sizes = [size for number in sorted(found) for size in found[number].chunks]
    num_rows = sum(count for _, count in sizes)
    left_out: Counter[str] = Counter()
    for each in found.values():
        left_out.update(each.left_out)
    rows = ClusterRows(
        checked=checked, num_rows=num_rows, chunks=tuple(number for number, _ in sizes)
    )
    has_any = bool(num_rows or problems)
    return CheckedManifest(
        rows=StoredRows(rows),
        problems=ordered_problems(problems, place=place or uri, is_empty=not has_any)[0],
        left_out=left_out,
        carried=names.carried,
        broken=tuple(dict.fromkeys(name for each in found.values() for name in each.broken)),
    )


class _CheckSplits:
    """Checks parts of a manifest; what many rows share is worked out once in each process."""

    def __init__(self, rules: RowRules, splits: Sequence[Split | Problem]) -> None:
        self._rules = rules
        self._checker = TableChecker(rules)
        self._splits = splits

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield the messages of the parts whose numbers are in ``batch``."""
        for number in batch["number"].to_pylist():
            split = self._splits[number]
            if isinstance(split, Split):
                yield from self._checked(number, split)

    def _checked(self, number: int, split: Split) -> Iterator[pa.Table]:
        names = ColumnNames()
        problems: list[tuple[int, int, Problem]] = []
        named: list[NamedColumns] = []
        left_out: Counter[str] = Counter()
        chunks: list[tuple[int, int]] = []
        rows: list[pa.Table] = []
        ids: list[pa.Table] = []
        place = chunk_number(number, 0) << CHUNK_BITS
        num_given = 0
        try:
            for raw in split_tables(split):
                found = self._checker.check(raw, place + num_given, names)
                num_given += len(raw)
                problems += [(at, OF_ROWS, problem) for at, problem in found.problems]
                named += found.named
                left_out.update(found.left_out)
                rows.append(found.rows)
                ids.append(found.ids)
                if num_given >= CHUNK_ROWS:
                    yield messages([*_chunk(rows, chunks, place), *_of_ids(ids)])
                    rows, ids, num_given = [], [], 0
                    place = chunk_number(number, len(chunks)) << CHUNK_BITS
        except LocationError as error:
            problem = Problem(place=split.file, field="(file)", problem=str(error))
            problems.append((place + num_given, OF_ROWS, problem))
        last = [*_chunk(rows, chunks, place), *_of_ids(ids)]
        facts = FoundInSplit(
            problems=tuple(problems),
            named=tuple(named),
            left_out=left_out,
            chunks=tuple(chunks),
            broken=self._rules.lora_files.broken,
            seen=self._rules.lora_files.seen,
        )
        yield messages([*last, message(number, "found", facts=facts)])


def _chunk(
    rows: list[pa.Table], chunks: list[tuple[int, int]], place: int
) -> Iterator[dict[str, Any]]:
    """Yield the message of a chunk, and note it in ``chunks``."""
    table = pa.concat_tables([CHECKED.empty_table(), *rows])
    if len(table):
        chunks.append((place >> CHUNK_BITS, len(table)))
        yield message(place >> CHUNK_BITS, "rows", table)


def _saw_the_same(found: Iterable[FoundInSplit]) -> bool:
    """Return whether each LoRA's file was the same one to all that looked at it."""
    seen: dict[str, str] = {}
    return all(
        seen.setdefault(name, file) == file for each in found for name, file in each.seen.items()
    )


def _of_ids(ids: list[pa.Table]) -> Iterator[dict[str, Any]]:
    """Yield the messages of the ids of a chunk: one of each partition of ids."""
    table = pa.concat_tables([IDS.empty_table(), *ids])
    if len(table):
        numbers = id_partitions(table["row_id"].to_pylist(), ID_PARTITIONS)
        yield from dealt(table, numbers, "ids")


def _id_problems(checked: data.Dataset) -> list[tuple[int, int, Problem]]:
    ids = checked.map_batches(partial(of_kind, kind="ids"), **BATCHES)
    found = ids.groupby("number", num_partitions=4 * num_workers()).map_groups(
        _ids_of_one, batch_format="pyarrow"
    )
    return [
        (place, OF_IDS, problem)
        for _, problems in facts_in(found, "problems")
        for place, problem in problems
    ]


def _ids_of_one(batch: pa.Table) -> pa.Table:
    number = batch["number"][0].as_py()
    return messages([message(number, "problems", facts=id_problems(tables_of(batch, "ids", IDS)))])
