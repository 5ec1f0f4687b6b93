"""What can be known of a job before it is sent to a cluster, from the machine that sends it.

Everything that would fail there and can be seen here is refused; what only the cluster can see is
said to be unknown, because a check that guesses is worse than none. Writes nothing and fetches
nothing.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from cluster.upload import Upload, described, measure_upload, read_excludes
from jobs.job.catalog_spec import CatalogSpec, load_spec, prepare_catalog
from jobs.job.inputs import PreparedJob
from jobs.job.job_file import MAX_JOB_BYTES, JobFile
from jobs.job.job_roots import job_names
from jobs.job.model_names import EMOJI_WORLD, is_hub_name
from manifests.places.locations import LocationError, expand
from manifests.places.place_names import absolute, is_uri, parent
from manifests.places.yaml_file import read_mapping
from manifests.text.problems import InputError
from manifests.weights.digests import file_sha256
from pipelines.storage.error import StorageError
from pipelines.storage.storage import open_storage

_OUTPUTS = ("output", "scoring.references_at", "fused_at")


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What was found.

    Attributes:
        command: What the cluster runs: ``compose``, or ``catalog`` for a catalog's spec.
        content: What the work is, for its name.
        refusals: Why it must not be sent; empty if it may.
        notes: What whoever sends it should know.
    """

    command: str
    content: Mapping[str, object]
    refusals: tuple[str, ...]
    notes: tuple[str, ...]


def check_before_sending(path: Path, working_dir: Path) -> Preflight:
    """Check the job at ``path`` and the folder that is sent with it.

    Raises:
        InputError: The job file itself cannot be read.
    """
    spec = load_spec(path)
    job = spec.job
    upload = measure_upload(working_dir, read_excludes())
    refusals = [*_relative_outputs(path), *_left_behind(path, spec, upload)]
    if not upload.fits:
        refusals.append(described(upload))
    notes = [described(upload).splitlines()[0], *_output_notes(job, refusals)]
    unseen = _unseen(job, upload.folder)
    notes += [f"{what} {place}: not on this machine, so not checked" for what, place in unseen]
    prepared = None if unseen else _prepared(spec, path, refusals)
    if prepared is not None:
        notes += [f"{problem}; its rows will fail" for problem in prepared.problems]
    return Preflight(
        command="compose" if spec.axes is None else "catalog",
        content={
            "job": job.model_dump(mode="json"),
            "catalog": None if spec.axes is None else spec.settings.model_dump(mode="json"),
            "inputs": _inputs(spec, prepared),
        },
        refusals=tuple(refusals),
        notes=tuple(notes),
    )


def _unseen(job: JobFile, sent: Path) -> list[tuple[str, str]]:
    """Return inputs that only the cluster may have: absolute places that nothing is at here."""
    return [
        (what, name)
        for what, name in job_names(job).items()
        if what not in _OUTPUTS
        and not is_uri(name)
        and (is_hub_name(name) or not (_files(name) or Path(name).is_relative_to(sent)))
    ]


def _prepared(spec: CatalogSpec, path: Path, refusals: list[str]) -> PreparedJob | None:
    """Return the checked inputs; None, with the reasons among the refusals, if they are bad."""
    try:
        return prepare_catalog(spec, place=str(path))
    except InputError as error:
        refusals.append(str(error))
        return None


def _relative_outputs(path: Path) -> list[str]:
    """Return a refusal for each place of output that is relative: the folder sent is deleted."""
    values: Any = read_mapping(str(path), max_bytes=MAX_JOB_BYTES, expected="a mapping")
    refusals: list[str] = []
    for setting in _OUTPUTS:
        value = values
        for name in setting.split("."):
            value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
        if isinstance(value, str) and not is_uri(value) and not value.startswith(("/", "~")):
            refusals.append(
                f"{path}: {setting} {value!r} is relative, and the cluster deletes the "
                "folder that is sent; name an absolute path on a disk that all machines share"
            )
    return refusals


def _left_behind(path: Path, spec: CatalogSpec, upload: Upload) -> list[str]:
    """Return a refusal for each input in the working directory that is not sent with it."""
    named = [("job file", str(path.absolute())), *_tables(spec), ("loras", spec.job.loras)]
    refusals: list[str] = []
    for what, place in named:
        if place is None or place == EMOJI_WORLD or is_uri(place):
            continue
        if not Path(place).is_file() or not Path(place).is_relative_to(upload.folder):
            continue
        if Path(place).relative_to(upload.folder).as_posix() not in upload.sizes:
            refusals.append(
                f"{what} {place} stays behind: .gitignore, .rayignore or cluster/runtime_env.yaml "
                "leaves it out; move it, or put it on a disk that all machines share"
            )
    return refusals


def _output_notes(job: JobFile, refusals: list[str]) -> list[str]:
    try:
        open_storage(job.output)
    except StorageError as error:
        refusals.append(str(error))
        return []
    if is_uri(job.output):
        return [f"output {job.output}: whether the cluster may write there is unknown from here"]
    folder = Path(job.output)
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    # The root of every machine exists; that it can be written here says nothing of there.
    if nearest == Path(nearest.anchor) or not os.access(nearest, os.W_OK):
        return [f"output {folder}: cannot be written from here; unknown for the cluster"]
    return [f"output {folder}: can be written from here"]


def _inputs(spec: CatalogSpec, prepared: PreparedJob | None) -> Sequence[object]:
    """Return what the inputs hold: the rows that they come to, else the bytes that are here."""
    if prepared is not None:
        return [[row.key, row.row_id, row.carried_json] for row in prepared.rows]
    loras = spec.job.loras
    places = [place for _, place in _tables(spec)]
    places += [] if loras is None or loras == EMOJI_WORLD else [loras]
    files = [file for place in places if not is_uri(place) for file in _files(place)]
    return [[file, file_sha256(Path(file))] for file in files]


def _tables(spec: CatalogSpec) -> list[tuple[str, str]]:
    """Return the files that rows are made from: the manifest, or those of a catalog's axes."""
    if spec.axes is None:
        return [("manifest", spec.job.manifest)]
    given = {"items": spec.settings.items, "scenes": spec.settings.scenes}
    folder = parent(spec.job.manifest)
    return [
        (what, absolute(place, beside=folder))
        for what, place in given.items()
        if isinstance(place, str)
    ]


def _files(place: str) -> list[str]:
    """Return the files at a local place: itself, what is in it, or what its glob matches."""
    try:
        return expand(place, suffixes=("",))
    except LocationError:
        return []
