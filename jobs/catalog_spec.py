"""A catalog's spec: a job file whose rows are not listed but made of items, scenes and seeds.

Everything a job file may say is said as there; in place of ``manifest`` stand the axes. Axes are
lists in the file itself, or tables beside it: Parquet, CSV, JSON lines or YAML.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field

from jobs.inputs import PreparedJob, prepare
from jobs.job_file import MAX_JOB_BYTES, JobFile, parse_job
from jobs.job_roots import service_roots
from manifests.allowed_roots import AllowedRoots
from manifests.grid_axes import Axes, axis_findings, expand_axes
from manifests.locations import LocationError
from manifests.place_names import absolute, parent
from manifests.problems import InputError, Problem
from manifests.readers import RawRow, read_rows
from manifests.row_schema import from_text
from manifests.wording import shown
from manifests.yaml_file import read_mapping, validated

__all__ = ["CatalogSettings", "CatalogSpec", "load_catalog", "load_spec", "prepare_catalog"]

AXIS_FILES = ("items", "scenes")

_Table = str | list[dict[str, Any]]


class CatalogSettings(BaseModel):
    """What a catalog's spec says beyond a job file.

    Attributes:
        items: Rows with ``item``, ``loras`` and columns that prompts speak of; or their file.
        scenes: Rows with ``scene`` and ``prompt``; or their file.
        looks: LoRAs that are added to every item's, by name; each look is a picture more.
        seeds: Each seed is a picture more.
        keep: Past editions that stay listed beside the latest.
        may_miss: Rows that may be without an image when an edition is published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    items: _Table | None = None
    scenes: _Table | None = None
    looks: dict[str, list[Any]] = Field(default_factory=lambda: {"plain": []})
    seeds: list[Annotated[int, Field(ge=0, strict=True)]] = Field(default_factory=lambda: [0])
    keep: Annotated[int, Field(ge=0, le=10_000)] = 7
    may_miss: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class CatalogSpec:
    """A spec that holds.

    Attributes:
        job: The job; of a spec with axes, its manifest is yet to be written.
        axes: What rows are made of; None if the job has a manifest of its own.
        settings: What is beyond the job.
    """

    job: JobFile
    axes: Axes | None
    settings: CatalogSettings


def load_catalog(path: str | Path) -> CatalogSpec:
    """Return the spec at ``path``, or the catalog that a job file's manifest is.

    Raises:
        InputError: With every problem of the file and of the tables that it names.
    """
    place = absolute(str(path), beside=str(Path.cwd()))
    return _parse_catalog(_read(place), place)


def _parse_catalog(values: Mapping[str, Any], place: str) -> CatalogSpec:
    own = {name: values[name] for name in CatalogSettings.model_fields if name in values}
    rest = {name: value for name, value in values.items() if name not in own}
    problems: list[Problem] = []
    settings = CatalogSettings()
    try:
        settings = validated(CatalogSettings, own, place=place)
    except InputError as error:
        problems += error.problems
    has_axes = any(name in own for name in AXIS_FILES)
    if has_axes and "manifest" in rest:
        text = "stands beside items or scenes, which make the rows; take one of them out"
        problems.append(Problem(place=place, field="manifest", problem=text))
    job = None
    try:
        job = parse_job({**rest, "manifest": place} if has_axes else rest, place=place)
    except InputError as error:
        problems += error.problems
    axes = None
    if has_axes and not problems:
        axes = _read_axes(settings, place, problems, service_roots())
    if problems or job is None:
        raise InputError(problems)
    return CatalogSpec(job=job, axes=axes, settings=settings)


def load_spec(path: str | Path) -> CatalogSpec:
    """Return what is at ``path``: a catalog if it has axes, else a job without editions.

    Raises:
        InputError: With every problem.
    """
    place = absolute(str(path), beside=str(Path.cwd()))
    values = _read(place)
    if any(name in values for name in AXIS_FILES):
        return _parse_catalog(values, place)
    job = parse_job(values, place=place)
    return CatalogSpec(job=job, axes=None, settings=CatalogSettings())


def prepare_catalog(spec: CatalogSpec, *, place: str) -> PreparedJob:
    """Return the catalog's rows, read and checked.

    Raises:
        InputError: With every problem.
    """
    if spec.axes is None:
        return prepare(spec.job, place=place)
    rows = expand_axes(spec.axes)
    raw = (RawRow(place=spec.job.manifest, line=n, values=row) for n, row in enumerate(rows, 1))
    return prepare(spec.job, place=place, raw_rows=raw)


def _read(place: str) -> dict[str, Any]:
    expected = "a mapping with items, scenes and output"
    return read_mapping(place, max_bytes=MAX_JOB_BYTES, expected=expected)


def _read_axes(
    settings: CatalogSettings, place: str, problems: list[Problem], allowed: AllowedRoots
) -> Axes:
    tables = {
        name: _table(getattr(settings, name), name, place, problems, allowed) for name in AXIS_FILES
    }
    axes = Axes(
        items=tables["items"],
        scenes=tables["scenes"],
        looks=settings.looks,
        seeds=settings.seeds,
    )
    if not problems:
        problems += [
            Problem(place=place, field=field, problem=text) for field, text in axis_findings(axes)
        ]
    return axes


def _table(
    given: _Table | None, name: str, place: str, problems: list[Problem], allowed: AllowedRoots
) -> list[dict[str, Any]]:
    if given is None:
        text = f"is missing; give rows, or a file of them, with a column {name[:-1]!r}"
        problems.append(Problem(place=place, field=name, problem=text))
        return []
    if not isinstance(given, str):
        return given
    file = absolute(given, beside=parent(place))
    try:
        allowed.check(file)
    except LocationError as error:
        problems.append(Problem(place=place, field=name, problem=str(error)))
        return []
    if file.endswith((".yaml", ".yml")):
        rows: Any = _read(file).get(name)
        if not isinstance(rows, list):
            text = f"should be a list under {name!r}, got {shown(rows)}"
            problems.append(Problem(place=file, field=name, problem=text))
            return []
        return cast("list[dict[str, Any]]", rows)
    rows = []
    for row in read_rows(file, allowed=allowed):
        if isinstance(row, Problem):
            problems.append(row)
        else:
            rows.append(from_text(row.values) if row.is_text else dict(row.values))
    return rows
