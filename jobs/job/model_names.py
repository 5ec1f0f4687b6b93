"""How a job names models: the embedded world, the hub's ``owner/name@revision``, or a place."""

import re
from collections.abc import Mapping
from pathlib import Path

from manifests.places.hub_names import REPOSITORY, REVISION
from manifests.places.place_names import is_uri
from manifests.text.wording import shown

EMOJI_WORLD = "emoji-world"
"""What a job calls the embedded base model and its LoRA catalog."""

_HUB_MODEL = re.compile(f"{REPOSITORY}@{REVISION}")

_GONE: Mapping[str, str] = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"
}


def is_hub_name(model: str) -> bool:
    """Return whether a model is named as ``owner/name@revision``."""
    return _HUB_MODEL.fullmatch(model) is not None


def hub_hint(place: str) -> str:
    """Return what to write if ``place`` was meant as a model of the hub; nothing if it was not.

    Without a revision ``owner/name`` is read as a folder, and so has become a path.
    """
    path = Path(place)
    name = f"{path.parent.name}/{path.name}"
    is_path = is_uri(place) or path.exists() or path.parent.exists()
    if is_path or not is_hub_name(f"{name}@main"):
        return ""
    return f"; if it is a model of the hub, write {name}@revision, with a commit as its revision"


def default_preset(base_model: object) -> str:
    """Return the sampler preset of a base model where none is named."""
    return "emoji" if base_model == EMOJI_WORLD else "paper"


def model_setting(name: str) -> str:
    """Return the job's setting that tells which base model rows mean by ``name``."""
    return f"base_models.{name}" if name else "base_model"


def name_findings(setting: str, model: object) -> list[tuple[str, str]]:
    """Return (setting, sentence) of what is wrong with the name of a base model."""
    if not isinstance(model, str):
        return []
    bare, at, _ = model.partition("@")
    if bare in _GONE:
        return [(setting, f"{bare!r} is gone from the hub; use {_GONE[bare]}@<commit>")]
    if at and not is_hub_name(model):
        return [(setting, f"should be owner/name@revision, got {shown(model)}")]
    return []
