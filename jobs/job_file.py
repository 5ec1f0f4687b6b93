"""The job file: everything a run depends on besides its manifest, in one frozen value.

One file, the same on a laptop and on a cluster; what isn't in it is a default told here. Unknown
settings are refused by name, because a misspelt one that is silently ignored costs a night of GPUs.
Relative paths start at the job file, so that a folder with a job in it can be moved.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, Field, ValidationError, field_validator

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods import METHODS
from jobs.model_names import (
    EMOJI_WORLD,
    default_preset,
    is_hub_name,
    model_setting,
    name_findings,
)
from manifests.locations import LocationError, absolute, parent, read_bytes
from manifests.problems import InputError, Problem
from manifests.sampler_settings import resolve_sampler
from manifests.text_rules import LoraName
from manifests.wording import WHOLE, SettingsError, did_you_mean, sentences, shown
from manifests.yaml_text import YamlError, load_yaml
from pipelines.failure_budget import FailureBudget
from pipelines.resources import Resources

__all__ = ["MAX_JOB_BYTES", "JobFile", "ScoringSettings", "load_job", "parse_job"]

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
    """

    references: Annotated[int | None, Field(ge=0, le=10_000)] = None
    model: str | None = None
    references_at: str | None = None


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


_KNOWN = {
    "": tuple(JobFile.model_fields),
    "scoring": tuple(ScoringSettings.model_fields),
    "resources": tuple(Resources.model_fields),
    "failure_budget": tuple(FailureBudget.model_fields),
}


def load_job(path: str | Path) -> JobFile:
    """Return the job at ``path`` (a local path or a URI), its paths made absolute.

    Raises:
        InputError: With every problem of the file.
    """
    place = absolute(str(path), beside=str(Path.cwd()))
    try:
        text = read_bytes(place, max_bytes=MAX_JOB_BYTES).decode("utf-8-sig")
        values = load_yaml(text)
    except LocationError as error:
        raise InputError([Problem(place=place, field="(file)", problem=str(error))]) from error
    except YamlError as error:
        where = f"line {error.line}: " if error.line else ""
        problem = f"{where}is not valid YAML: {error}"
        raise InputError([Problem(place=place, field="(file)", problem=problem)]) from error
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text (byte {error.start})"
        raise InputError([Problem(place=place, field="(file)", problem=problem)]) from error
    return parse_job(values, place=place)


def parse_job(values: object, *, place: str) -> JobFile:
    """Return the job that plain values describe.

    Args:
        values: What the file holds.
        place: The file, as an absolute path or URI; relative paths start beside it.

    Raises:
        InputError: With every problem of the values.
    """
    if not isinstance(values, Mapping):
        problem = f"should be a mapping with manifest and output, got {shown(values)}"
        raise InputError([Problem(place=place, field="(file)", problem=problem)])
    given = {str(key): value for key, value in cast("Mapping[object, Any]", values).items()}
    findings: list[tuple[str, str]] = []
    job = None
    try:
        job = JobFile.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as error:
        findings.extend(sentences(error, known=_KNOWN, given=given))
    # Read apart, so that a mistake elsewhere in the file does not hide one in these.
    models = _given_models(given)
    findings.extend(_sampler_findings(given.get("sampler") or {}, models))
    for name, model in models.items():
        findings.extend(name_findings(model_setting(name), model))
    if findings or job is None:
        raise InputError([Problem(place=place, field=f, problem=text) for f, text in findings])
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
            findings |= {
                ("sampler" if field == WHOLE else f"sampler.{field}", text): None
                for field, text in error.findings
            }
    return list(findings)


def _with_absolute_paths(job: JobFile, *, folder: str) -> JobFile:
    def placed(text: str) -> str:
        return absolute(text, beside=folder)

    def model(text: str) -> str:
        return text if text == EMOJI_WORLD or is_hub_name(text) else placed(text)

    scoring = job.scoring
    return job.model_copy(
        update={
            "manifest": placed(job.manifest),
            "output": placed(job.output),
            "loras": job.loras if job.loras in (None, EMOJI_WORLD) else placed(job.loras),
            "base_model": model(job.base_model),
            "base_models": {name: model(text) for name, text in job.base_models.items()},
            "scoring": scoring.model_copy(
                update={
                    "model": scoring.model
                    if scoring.model is None or is_hub_name(scoring.model)
                    else placed(scoring.model),
                    "references_at": None
                    if scoring.references_at is None
                    else placed(scoring.references_at),
                }
            ),
        }
    )
