"""A catalog's spec: a job file whose rows are not listed but made of items, scenes and seeds.

Everything a job file may say is said as there; in place of ``manifest`` stand the axes. Axes are
lists in the file itself, or tables beside it: Parquet, CSV, JSON lines or YAML.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from jobs.job.inputs import PreparedJob, prepare
from jobs.job.job_file import JOB_SECTION, MAX_JOB_BYTES, JobFile, parse_job
from jobs.job.job_roots import service_roots
from manifests.grid.axes import Axes, axis_findings, expand_axes
from manifests.grid.axis_names import named_items, named_scenes
from manifests.places.allowed_roots import AllowedRoots
from manifests.places.place_names import absolute, parent
from manifests.places.yaml_file import read_mapping, validated
from manifests.rows.schema import Seed
from manifests.tables.readers import RawRow, read_rows
from manifests.tables.yaml_rows import yaml_rows
from manifests.text.given_names import NamedValues, named_values
from manifests.text.problems import InputError, Problem, problems_at
from manifests.text.wording import within

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
    seeds: list[Seed] = Field(default_factory=lambda: [0])
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


_SECTION = replace(
    JOB_SECTION, names=(*JOB_SECTION.names, *CatalogSettings.model_fields), required=frozenset()
)


def _parse_catalog(given: Mapping[str, Any], place: str) -> CatalogSpec:
    named = named_values(given, _SECTION)
    values = named.values
    own = {name: values[name] for name in CatalogSettings.model_fields if name in values}
    rest = {name: value for name, value in values.items() if name not in own}
    has_axes = any(name in own for name in AXIS_FILES)
    problems = problems_at(place, named.findings)
    if has_axes:
        if "manifest" in rest:
            text = "stands beside items or scenes, which make the rows; take one of them out"
            problems.append(Problem(place=place, field="manifest", problem=text))
        rest["manifest"] = place
    settings, job = CatalogSettings(), None
    try:
        settings = validated(CatalogSettings, own, place=place)
    except InputError as error:
        problems += _unsaid(error, named)
    try:
        job = parse_job(rest, place=place)
    except InputError as error:
        problems += _unsaid(error, named)
    if problems or job is None:
        raise InputError(problems)
    spec = CatalogSpec(job=job, axes=None, settings=settings)
    return replace(spec, axes=_read_axes(spec)) if has_axes else spec


def load_spec(path: str | Path) -> CatalogSpec:
    """Return what is at ``path``: a catalog if it has axes, else a job without editions.

    Raises:
        InputError: With every problem.
    """
    place = absolute(str(path), beside=str(Path.cwd()))
    values = _read(place)
    if any(name in named_values(values, _SECTION).values for name in AXIS_FILES):
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


def _unsaid(error: InputError, named: NamedValues) -> list[Problem]:
    """Return the problems that do not follow from a wrong name."""
    return [problem for problem in error.problems if not named.speak_of(problem.field.split("."))]


def _read(place: str) -> dict[str, Any]:
    expected = "a mapping with items, scenes and output"
    return read_mapping(place, max_bytes=MAX_JOB_BYTES, expected=expected)


def _read_axes(spec: CatalogSpec) -> Axes:
    """Return the axes of a catalog; InputError with every problem of them."""
    settings, place, allowed = spec.settings, spec.job.manifest, service_roots()
    rows: dict[str, list[dict[str, Any]]] = {}
    problems: list[Problem] = []
    places: dict[str, str] = dict.fromkeys(AXIS_FILES, place)
    for name in AXIS_FILES:
        given = getattr(settings, name)
        if given is None:
            text = f"is missing; give rows, or a file of them, with a column {name[:-1]!r}"
            problems.append(Problem(place=place, field=name, problem=text))
        elif isinstance(given, str):
            places[name] = absolute(given, beside=parent(place))
            found = list(_table(name, places[name], place, allowed))
            problems += [row for row in found if isinstance(row, Problem)]
            rows[name] = [dict(row.values) for row in found if isinstance(row, RawRow)]
        else:
            rows[name] = given
    if not problems:
        rows["scenes"], of_scenes = named_scenes(rows["scenes"])
        rows["items"], of_items = named_items(rows["items"], rows["scenes"])
        for name, findings in (("items", of_items), ("scenes", of_scenes)):
            problems += problems_at(places[name], within(name, findings))
        axes = Axes(**rows, looks=settings.looks, seeds=settings.seeds)
        problems += problems_at(place, axis_findings(axes))
        if not problems:
            return axes
    raise InputError(problems)


def _table(name: str, file: str, place: str, allowed: AllowedRoots) -> Iterator[RawRow | Problem]:
    refusal = allowed.refusal(file)
    if refusal is not None:
        yield Problem(place=place, field=name, problem=refusal)
    elif file.endswith((".yaml", ".yml")):
        item = f"a mapping with {name[:-1]}"
        yield from yaml_rows(file, field=name, item=item, max_bytes=MAX_JOB_BYTES)
    else:
        yield from read_rows(file, allowed=allowed)
