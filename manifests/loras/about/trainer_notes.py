"""What a LoRA's trainer wrote into the file: hints to show, and defaults for a catalog.

sd-scripts writes ``ss_*``, newer tools ``modelspec.*``. All of it is a stranger's text: it is cut,
freed of control characters and never believed where shapes tell the same.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from clora_core.recipe.lora.adapter_config import AdapterConfig
from manifests.text.json_text import load_json
from manifests.text.text_rules import one_line

MAX_TAGS = 10
MAX_CHARACTERS = 200
_FOLDER = re.compile(r"\d+_(.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerNotes:
    """What the metadata say, each None (or empty) where they say nothing.

    Attributes:
        title: What its maker calls it.
        base_model: The model it was trained on.
        license: Licence of the weights.
        trigger: Words that call it up: the trigger phrase, else the instance words of the training
            folder (``10_sks cat``: ``sks``).
        subject: The noun it stands for: the class word of the training folder (``cat``).
        tags: The most frequent words of its captions with their counts: trigger candidates.
    """

    title: str | None
    base_model: str | None
    license: str | None
    trigger: str | None
    subject: str | None
    tags: tuple[tuple[str, int], ...]


def trainer_notes(metadata: Mapping[str, str], config: AdapterConfig | None = None) -> TrainerNotes:
    """Return what a LoRA's trainer says of it; what cannot be read says nothing.

    Args:
        metadata: Of the safetensors file.
        config: peft's settings beside it.
    """
    by_folder = _tag_counts(metadata.get("ss_tag_frequency", ""))
    totals: Counter[str] = Counter()
    for counts in by_folder.values():
        totals.update(counts)
    trigger, subject = _folder_words(by_folder)
    models = (
        _first(metadata, "ss_base_model_version", "modelspec.architecture"),
        _first(metadata, "ss_sd_model_name", "ss_sd_model_hash"),
    )
    return TrainerNotes(
        title=_first(metadata, "modelspec.title", "ss_output_name"),
        base_model=" / ".join(model for model in models if model) or _trained_on(config),
        license=_first(metadata, "modelspec.license", "license", "ss_license"),
        trigger=_first(metadata, "modelspec.trigger_phrase", "trigger_phrase") or trigger,
        subject=subject,
        tags=tuple(sorted(totals.items(), key=lambda item: (-item[1], item[0]))[:MAX_TAGS]),
    )


def _trained_on(config: AdapterConfig | None) -> str | None:
    return None if config is None or config.base_model is None else _text(config.base_model)


def _first(metadata: Mapping[str, str], *keys: str) -> str | None:
    for key in keys:
        text = _text(metadata.get(key, ""))
        if text:
            return text
    return None


def _text(value: str) -> str | None:
    text = one_line(value, max_characters=MAX_CHARACTERS)
    return None if text in ("", "None", "null") else text


def _tag_counts(text: str) -> dict[str, dict[str, int]]:
    """Return ``ss_tag_frequency``: folder to word to count, of what is shaped like it."""
    try:
        value = load_json(text)
    except (ValueError, RecursionError):
        return {}
    folders = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    found: dict[str, dict[str, int]] = {}
    for folder, counts in folders.items():
        own: dict[str, int] = {}
        for word, count in cast(
            "dict[str, Any]", counts if isinstance(counts, dict) else {}
        ).items():
            plain = _text(word)
            if plain and type(count) is int and 0 < count < 2**63:
                own[plain] = own.get(plain, 0) + count
        found[folder] = own
    return found


def _folder_words(by_folder: Mapping[str, Mapping[str, int]]) -> tuple[str | None, str | None]:
    """Return instance words and class word of the folder with the most captions."""
    ranked = sorted(by_folder, key=lambda folder: (-sum(by_folder[folder].values()), folder))
    found = _FOLDER.fullmatch(ranked[0]) if ranked else None
    text = _text(found[1]) if found else None
    if text is None:
        return None, None
    instance, _, kind = text.rpartition(" ")
    return (instance, kind) if instance else (text, None)
