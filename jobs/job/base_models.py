"""The base models that a job names: each brought here and inspected, none of them loaded."""

from collections.abc import Callable
from dataclasses import dataclass

from clora_core.recipe.config import SamplerConfig
from emoji_world import base_model_dir
from jobs.job.job_file import JobFile
from jobs.job.model_names import EMOJI_WORLD, hub_hint, is_hub_name, model_setting
from manifests.places.folder_cache import local_folder
from manifests.places.locations import LocationError
from manifests.places.place_names import is_uri
from manifests.weights.base_model import BaseModelFacts, inspect_base_model
from manifests.weights.model_config import BaseModelProblem

Snapshot = Callable[[str], str]
"""Brings a hub model (``owner/name@revision``) to a local folder."""

_STAND_IN = BaseModelFacts(folder="", digest="", default_size_px=512, cross_attention_width=None)
"""What rows are checked against when the base model itself is the problem."""


@dataclass(frozen=True, kw_only=True)
class JobModel:
    """One base model of a job.

    Attributes:
        name: What rows call it; empty for the one of rows that name none.
        place: Local folder, or the URI of one that every machine fetches for itself.
        facts: What its files say of it.
        sampler: Settings of its rows that change none.
    """

    name: str
    place: str
    facts: BaseModelFacts
    sampler: SamplerConfig

    @property
    def label(self) -> str:
        """What people are told it is."""
        return f"{self.name} = {self.place}" if self.name else self.place


def job_models(
    job: JobFile, snapshot: Snapshot
) -> tuple[dict[str, JobModel], list[tuple[str, str]]]:
    """Return the base models by the name that rows give them, and (setting, sentence) findings.

    A model that cannot be used has a stand-in, so that its rows can be checked nevertheless.
    """
    findings: list[tuple[str, str]] = []
    facts: dict[str, BaseModelFacts] = {}
    for name, named in job.models.items():
        if named in facts:
            continue
        try:
            facts[named] = model_facts(named, snapshot)
        except (BaseModelProblem, LocationError) as error:
            findings.append((model_setting(name), f"{error}{hub_hint(named)}"))
            facts[named] = _STAND_IN
    models = {
        name: JobModel(
            name=name,
            place=named if is_uri(named) else facts[named].folder,
            facts=facts[named],
            sampler=job.sampler_config(name),
        )
        for name, named in job.models.items()
    }
    return models, findings


def model_facts(named: str, snapshot: Snapshot | None = None) -> BaseModelFacts:
    """Return what the files of a base model say of it.

    Args:
        named: As a job names it.
        snapshot: The hub's own client if None.

    Raises:
        BaseModelProblem: It is none, or cannot be brought here.
        LocationError: A URI that cannot be read.
    """
    if named == EMOJI_WORLD:
        return inspect_base_model(base_model_dir())
    if is_hub_name(named):
        return inspect_base_model((snapshot or hub_snapshot)(named))
    return inspect_base_model(local_folder(named))


def hub_snapshot(name: str) -> str:
    """Return the local folder of a hub model, fetched if need be.

    Raises:
        BaseModelProblem: It cannot be fetched.
    """
    from huggingface_hub import snapshot_download  # asks for a second, so only when it is needed

    repository, _, revision = name.partition("@")
    try:
        return snapshot_download(
            repository, revision=revision, allow_patterns=["*.json", "*.txt", "*.safetensors"]
        )
    except Exception as error:  # the hub's client raises its own, its HTTP library's, and OSError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BaseModelProblem(
            f"{name} is neither on this machine nor can it be fetched ({reason}); check name, "
            "revision and network, or download it and name its folder"
        ) from error
