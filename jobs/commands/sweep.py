"""``clora sweep``: a grid in a few lines becomes a manifest and a job file, ready to be composed.

Both, and the LoRA catalog of a published testbed, are written into the job's output folder, so that
what was asked and what was made lie together. Neither base model nor LoRA files need be on this
machine: what is checked here is the sweep itself, its catalog and its settings; ``clora validate``
looks at the files.
"""

import io
from itertools import islice
from pathlib import Path
from shlex import quote
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from jobs.exit_code import ALL_MADE, command
from jobs.job.inputs import job_lora_catalog
from jobs.job.job_file import JobFile, parse_job
from jobs.job.job_roots import job_places, refuse_outside, service_roots
from jobs.job.model_names import EMOJI_WORLD
from jobs.notes import note
from manifests.grid.composlora import read_composlora
from manifests.grid.customconcept101 import read_customconcept101
from manifests.grid.expand import Expansion, SweepRules, expand_sweep
from manifests.grid.spec import MAX_SWEEP_BYTES, SweepSpec, load_sweep
from manifests.grid.testbed import Reading, ReadTestbed
from manifests.loras.catalog import LoraCatalog
from manifests.loras.local_lora import lora_refusal
from manifests.places.allowed_roots import AllowedRoots
from manifests.places.locations import read_bytes
from manifests.places.place_names import absolute, joined, parent
from manifests.rows.sampler_settings import resolve_sampler
from manifests.text.problems import MAX_SHOWN, InputError, Problem, problems_at
from manifests.text.wording import SettingsError, first_lines, within
from pipelines.storage.error import PlaceError
from pipelines.storage.storage import Storage, open_storage

MANIFEST_NAME = "manifest.parquet"
JOB_NAME = "job.yaml"
CATALOG_NAME = "loras.yaml"
ROWS_AT_A_TIME = 100_000
MARK = "# Written by `clora sweep"

COLUMNS = pa.schema(
    [
        ("row_id", pa.string()),
        ("prompt", pa.string()),
        ("loras", pa.string()),
        ("seed", pa.int64()),
        ("method", pa.string()),
        ("negative_prompt", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sampler", pa.string()),
        ("template", pa.string()),
        ("background", pa.string()),
    ]
)
"""Columns of the manifest; the last two are carried through to the output."""


@command()
def sweep(path: str | Path) -> int:
    """Write manifest and job of the sweep at ``path``; return the exit code.

    0, 1 if the output cannot be written now, 2 if the sweep is bad or its output never can be.
    """
    spec, place = load_sweep(path)
    job, expansion, testbed = _checked(spec, place)
    storage = open_storage(job.output, retry_s=job.resources.store_retry_s)
    files = {JOB_NAME: _job_text(job, place, has_catalog=testbed is not None)}
    if testbed is not None:
        files[CATALOG_NAME] = _marked({"loras": [*testbed.items]}, place)
    for name in files:
        _check_free(storage, name)
    storage.put(MANIFEST_NAME, _manifest(expansion))
    for name in reversed(files):  # the job last: it names the others
        storage.put(name, files[name])
    print(_summary(spec, expansion, joined(job.output, JOB_NAME)))
    if testbed is not None and testbed.left_out:
        note(_left_out(testbed))
    return ALL_MADE


def _check_free(storage: Storage, name: str) -> None:
    """Refuse to replace a file that somebody wrote by hand."""
    if storage.exists(name) and not storage.read(name).startswith(MARK.encode()):
        raise PlaceError(
            f"{joined(storage.uri, name)} was not written by `clora sweep` and would be "
            "replaced; name another output, or move that file"
        )


def _checked(spec: SweepSpec, place: str) -> tuple[JobFile, Expansion, ReadTestbed | None]:
    """Return job, rows and testbed of a sweep that holds; InputError with all problems else."""
    allowed = service_roots()
    problems: list[Problem] = []
    job = None
    try:
        job = parse_job(_job_values(spec), place=place)
    except InputError as error:
        problems += error.problems
    if job is not None:
        places = job_places(job)
        del places["manifest"]  # it is written into the output
        refuse_outside(places, allowed, place=place)
    for number, settings in enumerate(spec.samplers):
        try:
            resolve_sampler(settings, base=None if job is None else job.sampler_config())
        except SettingsError as error:
            problems += problems_at(place, within(f"samplers[{number}]", error.findings))
    testbed = _testbed(spec, place, allowed)
    catalog = _catalog(spec, place, allowed, testbed)
    problems += catalog.problems
    rules = SweepRules(
        catalog=catalog,
        read_text=lambda name: _text(absolute(name, beside=parent(place)), allowed),
        listed=() if testbed is None else testbed.compositions,
    )
    expansion = expand_sweep(spec, rules)
    problems += problems_at(place, expansion.findings)
    if problems or job is None:
        raise InputError(problems)
    return job, expansion, testbed


def _job_values(spec: SweepSpec) -> dict[str, Any]:
    shared = ("output", "base_model", "loras", "sampler", "scoring", "resources")
    given = {name: getattr(spec, name) for name in shared if name in spec.model_fields_set}
    return {"manifest": MANIFEST_NAME, **given}


def _testbed(spec: SweepSpec, place: str, allowed: AllowedRoots) -> ReadTestbed | None:
    """Return the published list that the sweep names, if it does, and what is wrong with it."""
    if spec.testbed is None:
        return None
    read = read_customconcept101 if spec.testbed.composlora is None else read_composlora
    bed = Reading(bed=spec.testbed, sweep=place, read_text=lambda name: _text(name, allowed))
    return read(bed)


def _catalog(
    spec: SweepSpec, place: str, allowed: AllowedRoots, testbed: ReadTestbed | None
) -> LoraCatalog:
    """Return the catalog of a sweep whose job may have mistakes elsewhere."""
    if testbed is not None:
        return _testbed_catalog(spec, place, allowed, testbed)
    name = spec.loras
    if name is None:
        name = EMOJI_WORLD if spec.base_model in (None, EMOJI_WORLD) else None
    elif name != EMOJI_WORLD:
        name = absolute(name, beside=parent(place))
    return job_lora_catalog(name, allowed)


def _testbed_catalog(
    spec: SweepSpec, place: str, allowed: AllowedRoots, testbed: ReadTestbed
) -> LoraCatalog:
    findings: list[tuple[str, str]] = []
    if spec.loras is not None:
        text = (
            f"stands beside testbed, which brings its own LoRAs; leave one out, got {spec.loras!r}"
        )
        findings.append(("loras", text))
    if spec.testbed and spec.testbed.composlora and "negative_prompt" not in spec.model_fields_set:
        text = "is required with composlora (the published code's get_prompt has it); '' is none"
        findings.append(("negative_prompt", text))
    if not testbed.compositions and not testbed.problems:
        text = f"leaves no composition: all {len(testbed.left_out):,} prompt(s) are left out"
        findings.append(("testbed", f"{text}; take skip_unfit out to see why"))
    for name, entry in testbed.entries.items():
        refusal = lora_refusal(entry.uri, allowed)
        if refusal is not None:
            findings.append(("testbed.loras", f"LoRA {name!r}: {refusal}"))
    problems = (*testbed.problems, *problems_at(place, findings))
    return LoraCatalog(place=testbed.place, entries=testbed.entries, problems=problems)


def _text(place: str, allowed: AllowedRoots) -> str:
    allowed.check(place)
    return read_bytes(place, max_bytes=MAX_SWEEP_BYTES).decode("utf-8-sig", errors="replace")


def _manifest(expansion: Expansion) -> bytes:
    sink, rows = io.BytesIO(), expansion.rows()
    parts = iter(lambda: list(islice(rows, ROWS_AT_A_TIME)), [])  # as columns rows are small
    tables = [pa.Table.from_pylist(part, schema=COLUMNS) for part in parts]
    pq.write_table(pa.concat_tables(tables), sink)
    return sink.getvalue()


def _job_text(job: JobFile, place: str, *, has_catalog: bool) -> bytes:
    """Return the job file: manifest and written catalog beside it, its output where it lies."""
    values = job.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    values |= {"manifest": MANIFEST_NAME, "output": "."}
    if has_catalog:
        values["loras"] = CATALOG_NAME
    return _marked(values, place)


def _marked(values: dict[str, Any], place: str) -> bytes:
    heading = f"{MARK} {Path(place).name}`, which replaces it.\n"
    return (heading + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)).encode()


def _left_out(testbed: ReadTestbed) -> str:
    lines = [f"  {problem.place}, {problem}" for problem in testbed.left_out]
    heading = f"left out {len(lines):,} prompt(s) of the testbed, as skip_unfit says:"
    return "\n".join([heading, *first_lines(lines, MAX_SHOWN)])


def _summary(spec: SweepSpec, expansion: Expansion, job: str) -> str:
    return "\n".join(
        (
            f"{expansion.num_rows:,} rows: {expansion.num_compositions:,} LoRA set(s), "
            f"{expansion.num_prompts:,} prompt(s), {len(spec.seeds):,} seed(s), "
            f"{len(spec.samplers):,} setting(s), {len(spec.methods):,} method(s)",
            f"  job: {job}",
            f"  next: clora plan {quote(job)}, then clora compose {quote(job)}",
        )
    )
