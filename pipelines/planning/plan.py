"""The plan as a value: which rows are to be made, in which units, and what units need.

Rows are in *parts* of some ten thousand, which are read one at a time; a plan itself holds runs of
units, so it stays small however many rows there are.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import pyarrow as pa

from clora_core.recipe.row import Lora, Row
from manifests.rows.checked_rows import CHECKED, row_columns, rows_of_checked, shared_values
from manifests.tables.arrow_functions import arrow
from pipelines.planning.plan_uses import PlanUses
from pipelines.planning.unit_runs import UnitNeeds, UnitRun, unit_starts
from pipelines.storage.storage import Storage
from pipelines.units.receipts import Phase
from pipelines.units.schemas import PLAN, PLANNED_ROW

UNITS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class PlanCounts:
    """What became of the rows of a manifest in a plan.

    Attributes:
        num_manifest_rows: All that were asked for.
        num_duplicates: Rows whose key an earlier row has.
        num_already_made: Distinct rows that are committed.
        num_unusable: Rows to be made that name a LoRA file which cannot be used.
        quarantined: Keys that failed too often to be tried again, sorted.
    """

    num_manifest_rows: int = 0
    num_duplicates: int = 0
    num_already_made: int = 0
    num_unusable: int = 0
    quarantined: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan(PlanCounts):
    """Units to make, and where the manifest's other rows are.

    Attributes:
        runs: All units, in the order to make them.
        num_rows: Rows in the units.
        uses: What they have in common.
        read_part: Returns a part's rows by its number (``cutting.PLANNED``).
        write_parts: Writes all parts of a run's phase side by side; None if that is not faster
            than one after another.
    """

    runs: tuple[UnitRun, ...]
    num_rows: int
    uses: PlanUses
    read_part: Callable[[int], pa.Table]
    write_parts: Callable[[Storage, str, Phase], None] | None = None

    @property
    def num_units(self) -> int:
        """Units to make."""
        return sum(run.num_units for run in self.runs)

    @property
    def part_numbers(self) -> tuple[int, ...]:
        """Numbers of the parts that hold units, ascending."""
        return tuple(sorted({run.part for run in self.runs}))

    @property
    def unit_ids(self) -> tuple[str, ...]:
        """Ids of all units, part by part; for small plans."""
        return tuple(name for table in self.parts() for name in _ids(table))

    @property
    def units(self) -> pa.Table:
        """All units as one table of ``schemas.PLAN``, part by part; for small plans."""
        return pa.concat_tables([PLAN.empty_table(), *self.batches()])

    def parts(self) -> Iterator[pa.Table]:
        """Yield the rows of each part, unit by unit (``cutting.PLANNED``)."""
        chosen = self._chosen()
        for part in self.part_numbers:
            yield _only_units(self.read_part(part), chosen[part])

    def batches(self) -> Iterator[pa.Table]:
        """Yield the units as tables of ``schemas.PLAN``, part by part, some at a time."""
        for table in self.parts():
            yield from unit_batches(table)

    def needs(self) -> Iterator[UnitNeeds]:
        """Yield what each unit needs, in the order to make them."""
        for run in self.runs:
            for _ in range(run.num_units):
                yield run.needs

    def only(self, unit_ids: Collection[str]) -> "Plan":
        """Return the plan of some of the units, in the same order; for small plans."""
        names = {part: _ids(self.read_part(part)) for part in self.part_numbers}
        runs = [
            replace(run, first=place, num_units=1)
            for run in self.runs
            for place in range(run.first, run.first + run.num_units)
            if names[run.part][place] in unit_ids
        ]
        plan = replace(self, runs=tuple(runs))
        return replace(plan, num_rows=sum(len(table) for table in plan.parts()))

    def members(self) -> Iterator[Row]:
        """Yield the rows in the units, part by part."""
        for table in self.parts():
            yield from rows_of_checked(table)

    def members_by_unit(self) -> Iterator[list[Row]]:
        """Yield the rows of each unit, part by part."""
        for table in self.parts():
            rows = rows_of_checked(table)
            for start, end in pairwise(unit_starts(table).tolist()):
                yield [next(rows) for _ in range(end - start)]

    def unit_keys(self) -> Iterator[pa.Table]:
        """Yield unit and key of each planned row, part by part, as ``unit_id`` and ``key``."""
        for table in self.parts():
            yield table.select(["unit_id", "key"])

    def keys(self) -> set[str]:
        """Return the keys of the rows in the units; for small plans."""
        return {key for table in self.unit_keys() for key in table["key"].to_pylist()}

    def _chosen(self) -> dict[int, list[tuple[int, int]]]:
        """Return the spans of units of each part that are in the plan."""
        spans: dict[int, list[tuple[int, int]]] = {}
        for run in sorted(self.runs, key=lambda run: (run.part, run.first)):
            spans.setdefault(run.part, []).append((run.first, run.first + run.num_units))
        return spans


def unit_batches(rows: pa.Table) -> Iterator[pa.Table]:
    """Yield the units of a part (``cutting.PLANNED``) as tables of ``schemas.PLAN``."""
    starts = unit_starts(rows)
    for first in range(0, len(starts) - 1, UNITS_PER_BATCH):
        borders = starts[first : first + UNITS_PER_BATCH + 1]
        inside = rows.slice(int(borders[0]), int(borders[-1] - borders[0]))
        yield _units(inside, pa.array(borders - borders[0], pa.int32()))


def lora_set(loras: Sequence[Lora]) -> str:
    """Return the names of a row's LoRAs, for people to look at."""
    return " + ".join(lora.name for lora in loras)


def _units(rows: pa.Table, borders: pa.Array) -> pa.Table:
    """Return units as a table of ``schemas.PLAN``.

    Args:
        rows: Of the units (``cutting.PLANNED``).
        borders: Where each begins, and the number of rows last [unit + 1].
    """
    planned = row_columns(rows.select(CHECKED.names)).append_column("attempt", rows["attempt"])
    structs = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in planned.columns], fields=list(PLANNED_ROW)
    )
    leaders = rows.take(borders[:-1])
    facts = [shared_values(text) for text in leaders["shared_json"].to_pylist()]
    return pa.table(
        {
            "unit_id": leaders["unit_id"],
            "num_rows": arrow.subtract(borders[1:], borders[:-1]),
            "method": [fact["method"] for fact in facts],
            "width": [fact["width"] for fact in facts],
            "height": [fact["height"] for fact in facts],
            "lora_set": [lora_set(fact["loras"]) for fact in facts],
            "attempt": leaders["attempt"],
            "rows": pa.ListArray.from_arrays(borders, structs),
        },
        schema=PLAN,
    )


def _ids(rows: pa.Table) -> list[str]:
    return rows["unit_id"].take(pa.array(unit_starts(rows)[:-1])).to_pylist()


def _only_units(rows: pa.Table, spans: Sequence[tuple[int, int]]) -> pa.Table:
    """Return the rows of the units within ``spans``, which are in order."""
    starts = unit_starts(rows).tolist()
    if sum(last - first for first, last in spans) == len(starts) - 1:
        return rows
    return pa.concat_tables(
        [rows.slice(starts[first], starts[last] - starts[first]) for first, last in spans]
    )
