"""The plan as a value: which rows are to be made, in which units.

It refers to rows by their place in the manifest and makes them into tables a few units at a time,
because a million rows written out take more memory than all the rest.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from clora_core.recipe.row import Lora, Row
from manifests.rows.table import row_table
from pipelines.units.schemas import PLAN, PLANNED_ROW

UNITS_PER_BATCH = 256


@dataclass(frozen=True)
class UnitNeeds:
    """What making a unit takes.

    Attributes:
        attempt: Of its rows, from 1. What failed before waits for what is new.
        files: Digests of its base model and of all its LoRAs.
    """

    attempt: int
    files: frozenset[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Units to make, and where the manifest's other rows are.

    Attributes:
        rows: The whole manifest.
        order: Places in ``rows`` of what is to be made, unit by unit [row].
        attempts: Number of the coming attempt [row].
        starts: Where each unit begins in ``order``, and its length last [unit + 1].
        unit_ids: Of the units, in the order to make them.
        num_duplicates: Rows whose key an earlier row has.
        num_already_made: Distinct rows that are committed.
        num_unusable: Rows to be made that name a LoRA file which cannot be used.
        quarantined: Keys that failed too often to be tried again.
    """

    rows: Sequence[Row]
    order: np.ndarray
    attempts: np.ndarray
    starts: np.ndarray
    unit_ids: tuple[str, ...]
    num_duplicates: int
    num_already_made: int
    num_unusable: int
    quarantined: tuple[str, ...]

    @property
    def num_manifest_rows(self) -> int:
        """Rows that were given."""
        return len(self.rows)

    @property
    def num_rows(self) -> int:
        """Rows in the units."""
        return len(self.order)

    @property
    def num_units(self) -> int:
        """Units to make."""
        return len(self.unit_ids)

    @property
    def units(self) -> pa.Table:
        """All units as one table of ``schemas.PLAN``; for small plans."""
        return pa.concat_tables([PLAN.empty_table(), *self.batches()])

    def batches(self) -> Iterator[pa.Table]:
        """Yield the units as tables of ``schemas.PLAN``, in order, some at a time."""
        for first in range(0, self.num_units, UNITS_PER_BATCH):
            yield self._table(first, min(first + UNITS_PER_BATCH, self.num_units))

    def needs(self) -> Iterator[UnitNeeds]:
        """Yield what each unit needs, in order."""
        attempts = self.attempts[self.starts[:-1]].tolist()
        for attempt, members in zip(attempts, self.members_by_unit(), strict=True):
            loras = {lora.digest for row in members for lora in row.loras}
            files = frozenset(loras | {members[0].base_model_digest})
            yield UnitNeeds(attempt=attempt, files=files)

    def only(self, unit_ids: Collection[str]) -> "Plan":
        """Return the plan of some of the units, in the same order."""
        chosen = [place for place, unit_id in enumerate(self.unit_ids) if unit_id in unit_ids]
        spans = [slice(*self.starts[place : place + 2].tolist()) for place in chosen]
        lengths = [span.stop - span.start for span in spans]
        empty = slice(0, 0)
        return replace(
            self,
            order=np.concatenate([self.order[span] for span in [empty, *spans]]),
            attempts=np.concatenate([self.attempts[span] for span in [empty, *spans]]),
            starts=np.cumsum([0, *lengths], dtype=np.int64),
            unit_ids=tuple(self.unit_ids[place] for place in chosen),
        )

    def members(self) -> Iterator[Row]:
        """Yield the rows in the units, in order."""
        return (self.rows[place] for place in self.order.tolist())

    def members_by_unit(self) -> Iterator[list[Row]]:
        """Yield the rows of each unit, in order."""
        for start, end in itertools.pairwise(self.starts.tolist()):
            yield [self.rows[place] for place in self.order[start:end].tolist()]

    def keys(self) -> set[str]:
        """Return the keys of the rows in the units."""
        return {row.key for row in self.members()}

    def _table(self, first: int, last: int) -> pa.Table:
        starts = self.starts[first : last + 1]
        inside = slice(int(starts[0]), int(starts[-1]))
        members = [self.rows[place] for place in self.order[inside].tolist()]
        attempts = pa.array(self.attempts[inside], pa.int32())
        planned = row_table(members).combine_chunks().append_column("attempt", attempts)
        structs = pa.StructArray.from_arrays(
            [column.combine_chunks() for column in planned.columns], fields=list(PLANNED_ROW)
        )
        leaders = [members[start] for start in (starts[:-1] - starts[0]).tolist()]
        return pa.table(
            {
                "unit_id": list(self.unit_ids[first:last]),
                "num_rows": pa.array(np.diff(starts), pa.int32()),
                "method": [row.method for row in leaders],
                "width": [row.width for row in leaders],
                "height": [row.height for row in leaders],
                "lora_set": [lora_set(row.loras) for row in leaders],
                "attempt": attempts.take(pa.array(starts[:-1] - starts[0])),
                "rows": pa.ListArray.from_arrays(pa.array(starts - starts[0], pa.int32()), structs),
            },
            schema=PLAN,
        )


def lora_set(loras: Sequence[Lora]) -> str:
    """Return the names of a row's LoRAs, for people and for dealing out units."""
    return " + ".join(lora.name for lora in loras)
