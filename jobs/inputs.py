"""Everything a job names, read and checked: the rows as they will be made, or all that is wrong.

Problems of job, catalog, base model and manifest are found in one go, because whoever gets them
back wants to fix them in one go. A LoRA file that cannot be used is not among them: its rows are
planned and end as errors, and all others are made. Loads neither torch nor Ray.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from clora_core.config import ENGINE_VERSION, SamplerConfig
from clora_core.methods import METHODS
from emoji_world import base_model_dir, dino_dir, lora_catalog
from jobs.composable import composition_findings
from jobs.job_file import EMOJI_WORLD, JobFile, is_hub_name, resolve_sampler
from jobs.job_roots import job_places, refuse_outside, service_roots
from jobs.lora_fit import lora_fit
from manifests.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.base_model import BaseModelFacts, BaseModelProblem, inspect_base_model
from manifests.catalog import Catalog, read_catalog
from manifests.check import RowDefaults, RowRules, check_rows
from manifests.folder_cache import local_folder
from manifests.locations import LocationError, is_uri
from manifests.lora_files import LoraFiles
from manifests.model_layers import UnknownLayersError, model_layers
from manifests.problems import InputError, Problem
from manifests.readers import RawRow, read_rows
from manifests.resolved import ResolvedRow

__all__ = ["PreparedJob", "Scoring", "base_model_folder", "job_catalog", "prepare"]

_STAND_IN = BaseModelFacts(folder="", digest="", default_size_px=512, cross_attention_width=None)
"""What rows are checked against when the base model itself is the problem."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Whether and with what images are scored.

    Attributes:
        model_dir: Folder of the DINO model, a path or a URI, or None for no scores.
        statement: One sentence for the log: what scores, or why nothing does.
    """

    model_dir: str | None
    statement: str


_NO_SCORES = Scoring(
    model_dir=None, statement="no scores: scoring.model names no DINO model for this base model"
)


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A job whose inputs hold.

    Attributes:
        rows: Of the manifest in its order, duplicates included.
        catalog: LoRAs by name.
        base_model_dir: Local folder, or the URI of one that every machine fetches for itself.
        base_model_digest: Part of every key.
        defaults: What a row that doesn't say gets.
        sampler: Settings of rows that change none.
        scoring: Whether and with what images are scored.
        problems: LoRA files that cannot be used, one each; rows that name them will fail.
        unknown_layers: Why LoRA layers were not compared with the base model's; None if they were.
    """

    rows: Sequence[ResolvedRow]
    catalog: Catalog
    base_model_dir: str
    base_model_digest: str
    defaults: RowDefaults
    sampler: SamplerConfig
    scoring: Scoring
    problems: tuple[Problem, ...]
    unknown_layers: str | None = None


def prepare(
    job: JobFile,
    *,
    place: str = "job",
    snapshot: Callable[[str], str] | None = None,
    raw_rows: Iterable[RawRow | Problem] | None = None,
) -> PreparedJob:
    """Read and check everything that ``job`` names.

    Args:
        job: From ``load_job``.
        place: The job file, for messages.
        snapshot: Brings a hub model (``owner/name@revision``) to a local folder; the hub's own
            client if None.
        raw_rows: Rows to check in place of the manifest's.

    Raises:
        InputError: With every problem of job, catalog, base model and manifest.
    """
    allowed = service_roots()
    places = job_places(job)
    if raw_rows is not None:
        del places["manifest"]  # its rows are given
    refuse_outside(places, allowed, place=place)
    problems: list[Problem] = []
    base = _STAND_IN
    try:
        base = inspect_base_model(base_model_folder(job, snapshot))
    except (BaseModelProblem, LocationError) as error:
        problems.append(Problem(place=place, field="base_model", problem=str(error)))
    scoring = _NO_SCORES
    problem = None
    try:
        scoring = _scoring(job, snapshot or _hub_snapshot)
        problem = _folder_problem(scoring.model_dir)
    except BaseModelProblem as error:
        problem = str(error)
    if problem is not None:
        text = f"{problem}; name a DINO model, or set references to 0"
        problems.append(Problem(place=place, field="scoring.model", problem=text))
    catalog = job_catalog(job, allowed)
    problems.extend(catalog.problems)
    sampler = job.sampler_config()

    def complete(overrides: Mapping[str, object]) -> Mapping[str, object]:
        return resolve_sampler(overrides, base=sampler).model_dump(mode="json")

    find_misfit = unknown_layers = None
    try:
        find_misfit = lora_fit(model_layers(base.folder)) if base.folder else None
    except UnknownLayersError as error:
        unknown_layers = str(error)
    files = LoraFiles(model_width=base.cross_attention_width, find_misfit=find_misfit)
    defaults = RowDefaults(
        method=job.method, width=base.default_size_px, height=base.default_size_px
    )
    rules = RowRules(
        catalog=catalog,
        lora_files=files,
        defaults=defaults,
        methods=tuple(METHODS),
        resolve_sampler=complete,
        composition_findings=composition_findings,
        base_model_digest=base.digest,
        dtype=job.resources.dtype,
        engine_version=ENGINE_VERSION,
        allowed=allowed,
    )
    raw_rows = read_rows(job.manifest, allowed=allowed) if raw_rows is None else raw_rows
    checked = check_rows(raw_rows, rules, place=job.manifest)
    problems.extend(checked.problems)
    if problems:
        raise InputError(problems)
    return PreparedJob(
        rows=checked.rows,
        catalog=catalog,
        base_model_dir=job.base_model if is_uri(job.base_model) else base.folder,
        base_model_digest=base.digest,
        defaults=defaults,
        sampler=sampler,
        scoring=scoring,
        problems=tuple(
            Problem(place=catalog.place, field=f"LoRA {name!r}", problem=text)
            for name, text in files.broken.items()
        ),
        unknown_layers=unknown_layers,
    )


def base_model_folder(job: JobFile, snapshot: Callable[[str], str] | None = None) -> str:
    """Return the local folder of a job's base model; arguments as in ``prepare``.

    Raises:
        BaseModelProblem: A hub model that cannot be brought here.
    """
    if job.uses_emoji_world:
        return str(base_model_dir())
    if job.is_hub_model:
        return (snapshot or _hub_snapshot)(job.base_model)
    return str(local_folder(job.base_model))


def _folder_problem(place: str | None) -> str | None:
    """Return why ``place`` is no folder that can be read, None if it is one or there is none."""
    if place is None:
        return None
    try:
        is_folder = local_folder(place).is_dir()
    except LocationError as error:
        return str(error)
    return None if is_folder else f"{place} is not a folder"


def _hub_snapshot(name: str) -> str:
    """Return the local folder of a hub model, fetched if need be."""
    from huggingface_hub import snapshot_download  # asks for a second, so only when it is needed

    repository, _, revision = name.partition("@")
    try:
        return snapshot_download(
            repository, revision=revision, allow_patterns=["*.json", "*.txt", "*.safetensors"]
        )
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BaseModelProblem(
            f"{name} is neither on this machine nor can it be fetched ({reason}); check name, "
            "revision and network, or download it and name its folder"
        ) from error


def job_catalog(job: JobFile, allowed: AllowedRoots = EVERYWHERE) -> Catalog:
    """Return the LoRA catalog of a job; what is wrong with it is in its problems."""
    if job.catalog is None:
        return Catalog(place="(no catalog)", entries={})
    if job.catalog == EMOJI_WORLD:
        return read_catalog(str(lora_catalog()))
    return read_catalog(job.catalog, allowed=allowed)


def _scoring(job: JobFile, snapshot: Callable[[str], str]) -> Scoring:
    if job.scoring.references == 0:
        return Scoring(model_dir=None, statement="no scores: scoring.references is 0")
    if job.scoring.model is not None:
        name = job.scoring.model
        folder = snapshot(name) if is_hub_name(name) else name
        return Scoring(model_dir=folder, statement=f"scores by the DINO model {name}")
    if job.uses_emoji_world:
        return Scoring(
            model_dir=str(dino_dir()), statement="scores by the embedded world's DINO model"
        )
    return _NO_SCORES
