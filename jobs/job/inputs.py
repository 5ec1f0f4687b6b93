"""Everything a job names, read and checked: the rows as they will be made, or all that is wrong.

Problems of job, catalog, base model and manifest are found in one go, because whoever gets them
back wants to fix them in one go. A LoRA file that cannot be used is not among them: its rows are
planned and end as errors, and all others are made. Loads neither torch nor Ray.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from emoji_world import dino_dir, lora_catalog
from jobs.job.base_models import JobModel, hub_snapshot, job_models
from jobs.job.job_file import JobFile
from jobs.job.job_roots import job_places, refuse_outside, service_roots
from jobs.job.model_names import EMOJI_WORLD, hub_hint, is_hub_name
from jobs.job.reference_count import count_references
from jobs.job.text_reader import text_reader
from manifests.loras.catalog import LoraCatalog, read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.places.folder_cache import local_folder
from manifests.places.locations import LocationError
from manifests.rows.check import CheckManifest, check_manifest, check_rows
from manifests.rows.rules import RowModel, RowRules
from manifests.rows.stored_rows import StoredRows
from manifests.tables.readers import RawRow
from manifests.text.problems import InputError, Problem, problems_at
from manifests.text.wording import listed
from manifests.weights.model_config import BaseModelProblem
from manifests.weights.model_layers import UnknownLayersError, model_layers
from manifests.weights.scorer_files import scorer_findings

MAX_LISTED_COLUMNS = 8


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """Whether and with what images are scored.

    Attributes:
        model_dir: Folder of the DINO model, a path or a URI, or None for no scores.
        statement: One sentence for the log: what scores, or why nothing does.
        num_references: Reference images of each LoRA.
        num_loras: LoRAs that are scored.
    """

    model_dir: str | None
    statement: str
    num_references: int = 0
    num_loras: int = 0

    def described(self) -> str:
        """Return the statement, and what the scores take."""
        if self.model_dir is None or not self.num_loras:
            return self.statement
        return (
            f"{self.statement}, against {self.num_references:,} reference image(s) of each of "
            f"{self.num_loras:,} LoRA(s), made once and kept"
        )


_NO_SCORES = Scoring(
    model_dir=None, statement="no scores: scoring.model names no DINO model for this base model"
)


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """A job whose inputs hold.

    Attributes:
        rows: Of the manifest in its order, duplicates included.
        catalog: LoRAs by name.
        models: Base models by the name that rows give them; the empty name is for those without.
        scoring: Whether and with what images are scored.
        problems: LoRA files that cannot be used, one each; rows that name them will fail.
        carried: Columns of the manifest that are the caller's own, and merely carried through.
        unknown_layers: Why LoRA layers were not compared with those of a base model, a sentence for
            each that does not tell its own.
        left_out: Columns of the manifest that hold row numbers and are not carried, with the
            number of such rows.
    """

    rows: StoredRows
    catalog: LoraCatalog
    models: Mapping[str, JobModel]
    scoring: Scoring
    problems: tuple[Problem, ...]
    carried: tuple[str, ...] = ()
    unknown_layers: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def models_by_digest(self) -> dict[str, JobModel]:
        """Base models by digest; of two names for the same, the first."""
        found: dict[str, JobModel] = {}
        for model in self.models.values():
            found.setdefault(model.facts.digest, model)
        return found

    def left_out_columns(self) -> list[str]:
        """Return the phrase that says what ``left_out`` is, or none."""
        columns = [
            f"{repr(name) if name else 'the column without a name'} ({count:,} row(s))"
            for name, count in self.left_out.items()
        ]
        return [f"row numbers in {listed(columns, MAX_LISTED_COLUMNS)}"] if columns else []


def prepare(
    job: JobFile,
    *,
    place: str = "job",
    snapshot: Callable[[str], str] | None = None,
    raw_rows: Iterable[RawRow | Problem] | None = None,
    check: CheckManifest = check_manifest,
) -> PreparedJob:
    """Read and check everything that ``job`` names.

    Args:
        job: From ``load_job``.
        place: The job file, for messages.
        snapshot: Brings a hub model (``owner/name@revision``) to a local folder; the hub's own
            client if None.
        raw_rows: Rows to check in place of the manifest's, the names of their columns checked.
        check: Reads and checks the manifest.

    Raises:
        InputError: With every problem of job, catalog, base model and manifest.
    """
    allowed = service_roots()
    places = job_places(job)
    if raw_rows is not None:
        del places["manifest"]  # its rows are given
    refuse_outside(places, allowed, place=place)
    models, findings = job_models(job, snapshot or hub_snapshot)
    problems = problems_at(place, findings)
    scoring = _NO_SCORES
    problem = None
    try:
        scoring = _scoring(job, snapshot or hub_snapshot)
        problem = _scorer_problem(scoring.model_dir)
    except BaseModelProblem as error:
        problem = str(error)
    if problem is not None:
        text = f"{problem}; name a DINO model, or set references to 0"
        problems.append(Problem(place=place, field="scoring.model", problem=text))
    catalog = job_lora_catalog(job.catalog, allowed)
    problems.extend(catalog.problems)
    fits, unknown_layers = _lora_fits(models)
    files = LoraFiles()
    rules = RowRules(
        catalog=catalog,
        lora_files=files,
        base_models={
            name: RowModel(
                digest=model.facts.digest,
                side_px=model.facts.default_size_px,
                lora_fit=fits[name],
                sampler=model.sampler,
                text=text_reader(model.facts.folder),
                maps=model.facts.maps,
            )
            for name, model in models.items()
        },
        method=job.method,
        dtype=job.resources.dtype,
        allowed=allowed,
    )
    checked = (
        check(job.manifest, rules, allowed=allowed, place=job.manifest)
        if raw_rows is None
        else check_rows(raw_rows, rules, place=job.manifest, names_are_checked=True)
    )
    problems.extend(checked.problems)
    if problems:
        raise InputError(problems)
    if scoring.model_dir is not None:
        num_references, num_loras = count_references(checked.rows, job.scoring.references)
        scoring = replace(scoring, num_references=num_references, num_loras=num_loras)
    return PreparedJob(
        rows=checked.rows,
        catalog=catalog,
        models=models,
        scoring=scoring,
        problems=tuple(
            Problem(place=catalog.place, field=f"LoRA {name!r}", problem=text)
            for name, text in dict.fromkeys((*files.broken, *checked.broken))
        ),
        carried=checked.carried,
        unknown_layers=unknown_layers,
        left_out=checked.left_out,
    )


def _lora_fits(models: Mapping[str, JobModel]) -> tuple[dict[str, LoraFit], tuple[str, ...]]:
    """Return what LoRAs must be for each model, and why the layers of some are not known."""
    fits: dict[str, LoraFit] = {}
    unknown: list[str] = []
    for name, model in models.items():
        layers = None
        try:
            layers = model_layers(model.facts.folder) if model.facts.folder else None
        except UnknownLayersError as error:
            unknown.append(str(error))
        fits[name] = LoraFit(model_width=model.facts.cross_attention_width, layers=layers)
    return fits, tuple(dict.fromkeys(unknown))


def _scorer_problem(place: str | None) -> str | None:
    """Return why ``place`` is no folder with a scorer, None if it is one or there is none."""
    if place is None:
        return None
    try:
        folder = local_folder(place)
    except LocationError as error:
        return str(error)
    if not folder.is_dir():
        return f"{place} is not a folder{hub_hint(place)}"
    return ". ".join(scorer_findings(folder)) or None


def job_lora_catalog(place: str | None, allowed: AllowedRoots = EVERYWHERE) -> LoraCatalog:
    """Return the LoRA catalog at ``JobFile.catalog``; what is wrong with it is in its problems."""
    if place is None:
        return LoraCatalog(place="(no catalog)", entries={})
    if place == EMOJI_WORLD:
        return read_lora_catalog(str(lora_catalog()))
    return read_lora_catalog(place, allowed=allowed)


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
