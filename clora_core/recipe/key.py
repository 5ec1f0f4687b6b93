"""The key of a row: the hash of everything that changes its pixels, and of nothing else.

Two rows with one key are one image, in this run and in any later one; resuming, deduplicating
and sharing references all rest on that. So the row's own id, the columns carried along, and what
a LoRA is called or where its file is have no place in it.

The rule for what comes later: a setting that did not exist before is left out of a row's key while
at its default, and settings of fusing are left out of rows whose method fuses nothing. How a prompt
is read is in the key where it makes a difference: the number of chunks of a long one, the syntax of
one with signs. Where a
setting, precision or back end changes an old row's pixels beyond rounding, ``ENGINE_VERSION`` steps
and the changelog says so.
"""

import hashlib
from functools import lru_cache

from clora_core.recipe.canonical import canonical_json, encoded, plain
from clora_core.recipe.config import (
    ENGINE_VERSION,
    FUSE_SETTINGS,
    FUSION_VERSION,
    SamplerConfig,
)
from clora_core.recipe.methods import METHODS
from clora_core.recipe.reading.embedded import folded_name
from clora_core.recipe.reading.syntax import syntax_acts
from clora_core.recipe.row import Lora, Region, Row

_FIRST_SETTINGS = frozenset(
    {
        "scheduler",
        "num_steps",
        "guidance_scale",
        "guide_until_step",
        "refine_steps",
        "num_refine_updates",
        "step_size",
        "temperature",
        "mask_threshold",
        "mask_morphology",
        "mask_from_step",
        "attention_half",
        "reforward_after_update",
        "text_encoder_lora",
        "switch_every",
        "switch_as_published",
        "merge_weights",
        "map_size",
    }
)
"""Sampler settings that are in every key. It does not grow: all others are later ones."""


def row_key(row: Row, *, dtype: str, engine_version: int | str = ENGINE_VERSION) -> str:
    """Return the sha256 (hex) of everything that changes the pixels of ``row``.

    Args:
        row: Complete but for its ``key`` and ``row_id``. Its LoRAs count in their order, which
            decides the order of sums; what they are called and where they lie doesn't count.
        dtype: Numbers that the base model computes with, such as ``float32``.
        engine_version: Changes when the same row would give another image.
    """
    parts = {
        "base_model": row.base_model_digest,
        "dtype": dtype,
        "engine": str(engine_version),
        "height": row.height,
        "loras": _lora_contents(row.loras),
        "method": row.method,
        "negative_prompt": row.negative_prompt,
        "prompt": row.prompt,
        "sampler": sampler_json(_settings_of(row.method, row.sampler)),
        "seed": row.seed,
        "width": row.width,
    }
    if row.text_chunks is not None and row.text_chunks > 1:
        parts["text_chunks"] = row.text_chunks
    triggers = (lora.trigger or "" for lora in row.concepts)
    if syntax_acts(row.sampler.prompt_syntax, (row.prompt, row.negative_prompt, *triggers)):
        parts["prompt_syntax"] = row.sampler.prompt_syntax
    if row.words:
        # What a LoRA is called is in no key, but these names are read in the row's texts.
        parts["words"] = [[folded_name(word.name) for word in lora.words] for lora in row.loras]
    if FUSION_VERSION > 1 and METHODS[row.method].fused_by is not None:
        parts["fusion"] = FUSION_VERSION
    return hashlib.sha256(encoded(parts).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _settings_of(method: str, config: SamplerConfig) -> SamplerConfig:
    """Return the settings without those that change no pixel of the method by themselves."""
    unread = {"prompt_syntax", "long_prompts"}
    if METHODS[method].fused_by is None:
        unread |= FUSE_SETTINGS
    defaults = {name: type(config).model_fields[name].default for name in unread}
    return config.model_copy(update=defaults)


@lru_cache(maxsize=4096)
def sampler_json(config: SamplerConfig) -> str:
    """Return the settings as they stand in keys and columns: canonical JSON.

    Later settings are left out while at their default, and reading the text gives them back.
    """
    defaults = type(config)()
    later = type(config).model_fields.keys() - _FIRST_SETTINGS
    unset = {name for name in later if getattr(config, name) == getattr(defaults, name)}
    return canonical_json(config.model_dump(mode="json", exclude=unset))


@lru_cache(maxsize=4096)
def _lora_contents(loras: tuple[Lora, ...]) -> object:
    """Return what of the LoRAs changes pixels, in their order."""
    return plain(
        [
            (
                lora.digest,
                lora.weight,
                lora.kind,
                lora.subject,
                lora.trigger,
                _region_content(lora.region),
            )
            for lora in loras
        ]
    )


def _region_content(region: Region | None) -> object:
    """Return what of a region changes pixels: all but where its mask lies."""
    if region is None:
        return None
    if region.mask_uri is None:
        return {"box": region.box, "mode": region.mode}
    if not region.mask_sha256:
        raise ValueError(f"the mask {region.mask_uri} has no digest, so its row has no key")
    return {"mask": region.mask_sha256, "mode": region.mode}
