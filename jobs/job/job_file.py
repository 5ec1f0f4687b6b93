"""The job file: everything a run depends on besides its manifest, in one frozen value.

One file, the same on a laptop and on a cluster; what isn't in it is a default told here. Unknown
settings are refused by name, because a misspelt one that is silently ignored costs a night of GPUs.
Relative paths start at the job file, so that a folder with a job in it can be moved.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, field_validator

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods import METHODS
from jobs.job.model_names import (
    EMOJI_WORLD,
    default_preset,
    is_hub_name,
    model_setting,
    name_findings,
)
from manifests.places.place_names import absolute, parent
from manifests.places.yaml_file import as_mapping, read_mapping, validated
from manifests.rows.sampler_settings import SAMPLER_SECTION, resolve_sampler
from manifests.text.given_names import named_values
from manifests.text.problems import InputError, Problem, problems_at
from manifests.text.sections import section_of
from manifests.text.text_rules import LoraName
from manifests.text.wording import SettingsError, did_you_mean, within
from pipelines.ledger.failure_budget import FailureBudget
from pipelines.session.resources import Resources

MAX_JOB_BYTES = 1024**2

_ModelName = Annotated[str, Field(min_length=1)]


class ScoringSettings(BaseModel, frozen=True, extra="forbid"):
    """How images are scored against single-LoRA references.

    Attributes:
        references: Reference images per LoRA. More is steadier and costs as many images once;
            they are made in blocks of 5, kept, and shared between runs. Not given: 5, and up to 50
            as long as there are no more references than rows; so it grows with the manifest. 0
            switches scoring off.
        model: DINO model (transformers ViT or DINOv2 with preprocessor_config.json): a folder or
            ``owner/name@revision``; the embedded world's own if not given, and none for other base
            models.
        references_at: Where references are kept; beside the output if not given.
        windows: Whether windows of each image are scored for ``dino_apart``, the figure that sees
            blended subjects. It costs the scoring processes one more picture a window.
    """

    references: Annotated[int | None, Field(ge=0, le=10_000)] = None
    model: str | None = None
    references_at: str | None = None
    windows: bool = True


class JobFile(BaseModel, frozen=True, extra="forbid"):
    """A job. All paths are absolute (or URIs) once ``load_job`` has read it.

    Attributes:
        manifest: Rows to make: a Parquet, CSV or JSONL file, a folder of them, or a glob.
        output: Folder that images and results go to; running again continues there.
        loras: LoRA catalog, YAML or Parquet. ``emoji-world`` is the embedded one, and the default
            with the embedded base model; without a catalog rows can name no LoRAs.
        base_model: ``emoji-world``, a folder in diffusers format, or ``owner/name@revision``; for
            rows that name none.
        base_models: Further ones, by the name that rows give them in a column ``base_model``. A
            row makes there what it makes in a job with that base model alone. More of them cost
            loading: an actor holds one at a time.
        method: For rows that name none.
        sampler: ``preset`` and any field of ``SamplerConfig``, for all rows; a row may change
            them. Where no preset is named it is that of the row's base model: ``emoji`` for the
            embedded one, else ``paper``.
        scoring: How images are scored, those of all base models by one DINO model.
        fused_at: Folder or bucket whose ``fused`` holds adapters of methods that fuse, which many
            jobs may share; the output if not given.
        resources: What the run may use. But for ``dtype`` it changes no row's key.
        failure_budget: How many rows may fail before the run stops.
    """

    manifest: Annotated[str, Field(min_length=1)]
    output: Annotated[str, Field(min_length=1)]
    loras: str | None = None
    base_model: _ModelName = EMOJI_WORLD
    base_models: Mapping[LoraName, _ModelName] = Field(default_factory=dict[str, str])
    method: str = "clora"
    sampler: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    scoring: ScoringSettings = ScoringSettings()
    fused_at: str | None = None
    resources: Resources = Resources()
    failure_budget: FailureBudget = FailureBudget()

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"is not a known method; {did_you_mean(method, tuple(METHODS))}")
        return method

    @property
    def uses_emoji_world(self) -> bool:
        """Whether the base model of rows that name none is the embedded one."""
        return self.base_model == EMOJI_WORLD

    @property
    def models(self) -> dict[str, str]:
        """All base models by the name that rows give them; the empty name is for those without."""
        return {"": self.base_model, **self.base_models}

    @property
    def catalog(self) -> str | None:
        """The catalog's place, the default applied: a path, a URI, ``emoji-world`` or None."""
        return self.loras or (EMOJI_WORLD if self.uses_emoji_world else None)

    def sampler_config(self, base_model: str = "") -> SamplerConfig:
        """Return the complete sampler settings of rows that change nothing.

        Args:
            base_model: The name that the rows give their base model, if any.

        Raises:
            SettingsError: A setting is unknown or out of its range.
        """
        return resolve_sampler({"preset": default_preset(self.models[base_model]), **self.sampler})


_EXPECTED = "a mapping with manifest and output"
JOB_SECTION = section_of(JobFile, inner={"sampler": SAMPLER_SECTION})


def load_job(path: str | Path) -> JobFile:
    """Return the job at ``path`` (a local path or a URI), its paths made absolute.

    Raises:
        InputError: With every problem of the file.
    """
    place = absolute(str(path), beside=str(Path.cwd()))
    return parse_job(read_mapping(place, max_bytes=MAX_JOB_BYTES, expected=_EXPECTED), place=place)


def parse_job(values: object, *, place: str) -> JobFile:
    """Return the job that plain values describe.

    Args:
        values: What the file holds.
        place: The file, as an absolute path or URI; relative paths start beside it.

    Raises:
        InputError: With every problem of the values.
    """
    given = as_mapping(values, place=place, expected=_EXPECTED)
    problems: list[Problem] = []
    job = None
    try:
        job = validated(JobFile, given, place=place, section=JOB_SECTION)
    except InputError as error:
        problems += error.problems
    # Read apart, so that a mistake elsewhere in the file does not hide one in these.
    given = named_values(given, JOB_SECTION).values
    models = _given_models(given)
    findings = _sampler_findings(given.get("sampler") or {}, models)
    for name, model in models.items():
        findings += name_findings(model_setting(name), model)
    problems += problems_at(place, findings)
    if problems or job is None:
        raise InputError(problems)
    return _with_absolute_paths(job, folder=parent(place))


def _given_models(given: Mapping[str, Any]) -> dict[str, object]:
    """Return the base models of a file that may have mistakes, as ``JobFile.models``."""
    further = given.get("base_models")
    if not isinstance(further, Mapping):
        further = {}
    return {
        "": given.get("base_model") or EMOJI_WORLD,
        **{str(name): model for name, model in cast("Mapping[object, object]", further).items()},
    }


def _sampler_findings(sampler: object, models: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return what is wrong with the settings, on each preset that rows will start from."""
    if not isinstance(sampler, Mapping):
        return []
    settings = cast("Mapping[str, object]", sampler)
    findings: dict[tuple[str, str], None] = {}
    for preset in dict.fromkeys(map(default_preset, models.values())):
        try:
            resolve_sampler({"preset": preset, **settings})
        except SettingsError as error:
            findings |= dict.fromkeys(within("sampler", error.findings))
    return list(findings)


def _with_absolute_paths(job: JobFile, *, folder: str) -> JobFile:
    def placed(text: str | None) -> str | None:
        return None if text is None else absolute(text, beside=folder)

    def model(text: str | None) -> str | None:
        return text if text is not None and is_hub_name(text) else placed(text)

    def unless_embedded(text: str | None) -> str | None:
        return text if text == EMOJI_WORLD else model(text)

    scoring = job.scoring
    places = {"model": model(scoring.model), "references_at": placed(scoring.references_at)}
    return job.model_copy(
        update={
            "manifest": placed(job.manifest),
            "output": placed(job.output),
            "loras": job.loras if job.loras == EMOJI_WORLD else placed(job.loras),
            "fused_at": placed(job.fused_at),
            "base_model": unless_embedded(job.base_model),
            "base_models": {name: unless_embedded(at) for name, at in job.base_models.items()},
            "scoring": scoring.model_copy(update=places),
        }
    )
