"""Rows on the embedded world that benchmarks share."""

from collections.abc import Sequence

import yaml

import emoji_world
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Lora, Row

SIDE_PX = 64
MOST_IN_A_SENTENCE = 6


def _uses(kind: str) -> list[Lora]:
    path = emoji_world.lora_catalog()
    entries = yaml.safe_load(path.read_text())["loras"]
    return [
        Lora(
            name=entry["name"],
            uri=str(path.parent / entry["uri"]),
            digest=entry["name"],
            kind=entry["kind"],
            subject=entry.get("subject"),
            trigger=entry.get("trigger"),
        )
        for entry in entries
        if entry["kind"] == kind
    ]


def concepts() -> list[Lora]:
    """Return one concept LoRA of every subject in the embedded catalog."""
    first: dict[str, Lora] = {}
    for use in _uses("concept"):
        first.setdefault(use.subject or "", use)
    return list(first.values())


def styles() -> list[Lora]:
    """Return the style LoRAs of the embedded catalog."""
    return _uses("style")


def composed_row(
    loras: Sequence[Lora], config: SamplerConfig, *, seed: int = 0, method: str = "clora"
) -> Row:
    """Return a row that names every concept of ``loras``, briefly where there are many."""
    subjects = [lora.subject or "" for lora in loras if lora.kind == "concept"]
    # The embedded text encoder reads 24 tokens.
    is_long = len(subjects) > MOST_IN_A_SENTENCE
    prompt = " ".join(subjects) if is_long else " and ".join(f"a {name}" for name in subjects)
    return Row(
        prompt=prompt,
        loras=tuple(loras),
        seed=seed,
        method=method,
        sampler=config,
        width=SIDE_PX,
        height=SIDE_PX,
    )
