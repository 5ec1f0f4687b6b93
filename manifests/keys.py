"""The key of a row: the hash of everything that changes its pixels, and of nothing else.

Two rows with one key are one image, in this run and in any later one; resuming, deduplicating
and sharing references all rest on that. So the row's own id, the columns carried along, and what
a LoRA is called or where it lies have no place in it.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from manifests.resolved import ResolvedLora

__all__ = ["canonical_json", "row_key"]

# Made once: a million rows are keyed with it.
_ENCODER = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=True,
    allow_nan=False,
    check_circular=False,
)


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII, 1.0 written as 1.

    Raises:
        TypeError: Something that JSON cannot say.
        ValueError: A NaN or an infinity.
    """
    return _ENCODER.encode(_plain(value))


def row_key(
    *,
    prompt: str,
    negative_prompt: str,
    loras: Iterable[ResolvedLora],
    seed: int,
    method: str,
    width: int,
    height: int,
    sampler: Mapping[str, object] | str,
    base_model_digest: str,
    dtype: str,
    engine_version: int | str,
) -> str:
    """Return the sha256 (hex) of everything that changes the pixels of a row.

    Args:
        prompt: What to draw.
        negative_prompt: What to steer away from.
        loras: In the row's order, which decides the order of sums; what they are called and where
            they lie doesn't count.
        seed: Of the row's random numbers.
        method: How the LoRAs are combined.
        width: In pixels.
        height: In pixels.
        sampler: The complete settings, or their ``canonical_json``.
        base_model_digest: Identity of the base model.
        dtype: Numbers that the base model computes with, such as ``float32``.
        engine_version: Changes when the same row would give another image.
    """
    settings = sampler if isinstance(sampler, str) else canonical_json(sampler)
    parts = {
        "base_model": base_model_digest,
        "dtype": dtype,
        "engine": str(engine_version),
        "height": height,
        "loras": [
            [
                lora.digest,
                _plain(lora.weight),
                lora.kind,
                lora.subject,
                lora.trigger,
                _region_content(lora.region_json),
            ]
            for lora in loras
        ],
        "method": method,
        "negative_prompt": negative_prompt,
        "prompt": prompt,
        "sampler": settings,
        "seed": seed,
        "width": width,
    }
    return hashlib.sha256(_ENCODER.encode(parts).encode()).hexdigest()


def _region_content(region_json: str | None) -> object:
    """Return what of a region changes pixels: all but where its mask lies."""
    if region_json is None:
        return None
    region: dict[str, Any] = json.loads(region_json)
    return region | {"mask": region["mask"]["sha256"]} if "mask" in region else region


def _plain(value: object) -> object:
    """Return ``value`` with numbers that are equal written alike."""
    if isinstance(value, float):
        if value.is_integer() and math.fabs(value) < 2**53:
            return int(value)
        return value
    if isinstance(value, Mapping):
        return {
            str(key): _plain(item) for key, item in cast("Mapping[object, object]", value).items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Sequence[object]", value)]
    return value
