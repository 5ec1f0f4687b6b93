"""What an arm is called beside its method: the base model and settings that tell it from others.

Only what differs is told. Settings are compared among the images of one base model, because presets
follow the model: what differs between two models is said by their names.
"""

import json
from collections.abc import Iterable, Mapping

import pyarrow as pa

Origin = tuple[str, str]
"""Digest of the base model and ``sampler_json`` of an image."""

_SHORT_DIGEST = 12


def origin_labels(rows: pa.Table, base_models: Mapping[str, str]) -> dict[Origin, str]:
    """Return what tells each origin from the others; nothing if there is only one.

    Args:
        rows: With ``base_model_digest`` and ``sampler_json``.
        base_models: What base models are called, by digest; others are called by their digest.
    """
    settings: dict[str, list[str]] = {}
    for found in rows.group_by(["base_model_digest", "sampler_json"]).aggregate([]).to_pylist():
        settings.setdefault(found["base_model_digest"], []).append(found["sampler_json"])
    labels: dict[Origin, str] = {}
    for digest, texts in settings.items():
        name = base_models.get(digest, digest[:_SHORT_DIGEST])
        model = [f"on {name}"] if len(settings) > 1 else []
        for text, label in _settings_labels(texts).items():
            labels[digest, text] = ", ".join([*model, *([label] if label else [])])
    return labels


def _settings_labels(sampler_jsons: Iterable[str]) -> dict[str, str]:
    """Return what tells each of the settings from the others; nothing if there is only one."""
    settings = {text: json.loads(text) for text in sampler_jsons}
    names = sorted({name for each in settings.values() for name in each})
    varied = [
        name
        for name in names
        if len({json.dumps(each.get(name)) for each in settings.values()}) > 1
    ]
    return {
        text: ", ".join(f"{name} {json.dumps(each.get(name))}" for name in varied)
        for text, each in settings.items()
    }
