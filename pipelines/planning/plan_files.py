"""A plan as a data set: ``plans/RUN/PHASE-PART.parquet``, a row a unit, its rows nested.

Actors read their units from here. A record beside the parts, written after all of them,
names them: a plan without one is of a run that never began its units. Earlier releases wrote a
plan as one file.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.planning.plan import UNITS_PER_BATCH, Plan, unit_batches
from pipelines.storage.storage import Storage
from pipelines.units.message import UnitFacts, UnitMessage
from pipelines.units.output_files import (
    MISSING,
    DamagedFileError,
    encode_json,
    encode_parquet,
    open_parquet,
    read_json,
)
from pipelines.units.receipts import Phase
from pipelines.units.schemas import PLAN, PLANNED_ROW

PLANS_FOLDER = "plans"

UNIT_KEYS = pa.schema([("unit_id", pa.string()), ("key", pa.string())])
"""A row of a unit."""


def part_name(run_id: str, phase: Phase, part: int) -> str:
    """Return the name of a part of a run's plan."""
    return f"{PLANS_FOLDER}/{run_id}/{phase}-{part:05}.parquet"


def record_name(run_id: str, phase: Phase) -> str:
    """Return the name of the record of a run's plan."""
    return f"{PLANS_FOLDER}/{run_id}/{phase}.json"


def one_file_name(run_id: str, phase: Phase) -> str:
    """Return the name of a run's plan as earlier releases wrote it."""
    return f"{PLANS_FOLDER}/{run_id}-{phase}.parquet"


def write_plan(storage: Storage, run_id: str, phase: Phase, plan: Plan) -> None:
    """Write a plan; once the record is there, so are all parts."""
    if plan.write_parts is not None:
        plan.write_parts(storage, run_id, phase)
    else:
        for part in plan.part_numbers:
            write_part(storage, part_name(run_id, phase, part), plan.read_part(part))
    name = record_name(run_id, phase)
    values = {
        "name": name,
        "parts": list(plan.part_numbers),
        "num_units": plan.num_units,
        "num_rows": plan.num_rows,
    }
    storage.put(name, encode_json(values))


def write_part(storage: Storage, name: str, rows: pa.Table) -> None:
    """Write the units of a part (``cutting.PLANNED``)."""
    storage.put(name, encode_parquet(name, unit_batches(rows), PLAN))


def planned_phases(storage: Storage, phase: Phase) -> list[str]:
    """Return the runs that planned ``phase``, also those of earlier releases."""
    runs: set[str] = set()
    for name, _ in storage.sizes(PLANS_FOLDER):
        folder, _, file = name.removeprefix(f"{PLANS_FOLDER}/").rpartition("/")
        if folder and file == f"{phase}.json":
            runs.add(folder)
        elif not folder and file.endswith(f"-{phase}.parquet"):
            runs.add(file.removesuffix(f"-{phase}.parquet"))
    return sorted(runs)


def planned_keys(
    storage: Storage, run_id: str, phase: Phase, *, skip: Callable[[DamagedFileError], None]
) -> Iterator[pa.Table]:
    """Yield the keys of all units of a run's plan (``UNIT_KEYS``); none if it never planned.

    Args:
        storage: The output.
        run_id: The run.
        phase: Of the run.
        skip: Gets each damaged file of the plan, whose units are left out.
    """
    name = record_name(run_id, phase)
    try:
        names = [part_name(run_id, phase, part) for part in read_parts(storage, name)]
    except FileNotFoundError:
        name = one_file_name(run_id, phase)
        names = [name] if storage.exists(name) else []
    except DamagedFileError as error:
        skip(error)
        # Whatever parts there are; the record would be missing if it had not been complete.
        names = storage.list(f"{PLANS_FOLDER}/{run_id}", ".parquet")
        names = [each for each in names if each.rpartition("/")[2].startswith(f"{phase}-")]
    for each in names:
        try:
            yield from _keys(storage, each)
        except DamagedFileError as error:
            skip(error)
        except FileNotFoundError:
            skip(DamagedFileError(storage.uri, each, MISSING))


def read_parts(storage: Storage, name: str) -> list[int]:
    """Return the numbers of a plan's parts, from its record; errors as ``read_json``."""

    def parts(values: dict[str, Any]) -> list[int]:
        if values["name"] != name:
            raise ValueError(f"the content of {values['name']}")
        return list(map(int, values["parts"]))

    return read_json(storage, name, parts)


def check_record(storage: Storage, name: str) -> None:
    """Raise what is wrong with a plan's record: it is damaged, or a part that it names is missing.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: Of the record; parts that are there are not read.
    """
    for part in read_parts(storage, name):
        # As ``part_name`` makes it.
        file = f"{name.removesuffix('.json')}-{part:05}.parquet"
        if not storage.exists(file):
            raise DamagedFileError(storage.uri, name, f"names {file}, which is missing")


def _keys(storage: Storage, name: str) -> Iterator[pa.Table]:
    with open_parquet(storage, name) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(
                group, columns=["unit_id", "rows.list.element.key"], use_threads=False
            ).combine_chunks()
            rows = table["rows"].combine_chunks()
            lengths = rows.value_lengths().to_numpy()
            units = table["unit_id"].take(pa.array(np.repeat(np.arange(len(lengths)), lengths)))
            keys = rows.flatten().field("key")
            yield pa.table([units, keys], schema=UNIT_KEYS)


class PlanReader:
    """Reads units of a run's plan, some neighbours at a time; can be sent to any machine.

    Args:
        storage: The output that the plan is in.
        run_id: The run.
        phase: Of the run.
    """

    def __init__(self, *, storage: Storage, run_id: str, phase: Phase) -> None:
        self._of = storage, run_id, phase
        # One value, because several threads of an actor read: which group, and its units.
        self._held: tuple[tuple[int, int], pa.Table] | None = None

    def __reduce__(self) -> tuple[object, ...]:
        """Travel without what was read."""
        return _reader, self._of

    def read(self, part: int, place: int) -> UnitMessage:
        """Return the unit at a place of a part.

        Raises:
            DamagedFileError: The part is damaged.
            FileNotFoundError: It is gone.
        """
        group, within = divmod(place, UNITS_PER_BATCH)
        held = self._held
        if held is None or held[0] != (part, group):
            storage, run_id, phase = self._of
            with open_parquet(storage, part_name(run_id, phase, part)) as file:
                units = file.read_row_group(group, use_threads=False).cast(PLAN)
            held = self._held = (part, group), units
        (unit,) = held[1].slice(within, 1).combine_chunks().to_batches()
        rows = pa.Table.from_struct_array(unit["rows"].flatten()).cast(PLANNED_ROW)
        return UnitMessage(unit_id=unit["unit_id"][0].as_py(), rows=rows, facts=UnitFacts())


def _reader(storage: Storage, run_id: str, phase: Phase) -> PlanReader:
    return PlanReader(storage=storage, run_id=run_id, phase=phase)
