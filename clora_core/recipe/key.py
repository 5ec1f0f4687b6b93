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
from json.encoder import encode_basestring_ascii as _quoted

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
    syntax = row.sampler.prompt_syntax
    triggers = (lora.trigger or "" for lora in row.concepts)
    acts = syntax_acts(syntax, (row.prompt, row.negative_prompt, *triggers))
    template = _template(
        row.base_model_digest,
        row.loras,
        row.method,
        row.sampler,
        row.width,
        row.height,
        dtype,
        str(engine_version),
    )
    return template.key(
        row.prompt,
        row.negative_prompt,
        row.seed,
        text_chunks=row.text_chunks,
        acting_syntax=syntax if acts else None,
    )


def key_template(
    row: Row, *, dtype: str, engine_version: int | str = ENGINE_VERSION
) -> "KeyTemplate":
    """Return what makes the keys of rows that share with ``row`` all but their texts and seeds."""
    return KeyTemplate(
        row.base_model_digest,
        row.loras,
        row.method,
        row.sampler,
        row.width,
        row.height,
        dtype,
        str(engine_version),
    )


class KeyTemplate:
    """The keys of rows that differ in their texts and seeds alone.

    A key is the hash of one canonical JSON object, whose fields stand in the order of their names.
    What such rows share is written once; what comes first of it is hashed once, too.
    """

    def __init__(
        self,
        base_model_digest: str,
        loras: tuple[Lora, ...],
        method: str,
        sampler: SamplerConfig,
        width: int,
        height: int,
        dtype: str,
        engine_version: str,
    ) -> None:
        first: dict[str, object] = {
            "base_model": base_model_digest,
            "dtype": dtype,
            "engine": engine_version,
            "height": height,
            "loras": _lora_contents(loras),
            "method": method,
        }
        if FUSION_VERSION > 1 and METHODS[method].fused_by is not None:
            first["fusion"] = FUSION_VERSION
        last: dict[str, object] = {"width": width}
        if any(lora.words for lora in loras):
            # What a LoRA is called is in no key, but these names are read in the row's texts.
            last["words"] = [[folded_name(word.name) for word in lora.words] for lora in loras]
        begun = f'{encoded(first)[:-1]},"negative_prompt":'
        self._begun = hashlib.sha256(begun.encode())
        self._settings = (
            f',"sampler":{encoded(sampler_json(_settings_of(method, sampler)))},"seed":'
        )
        self._end = f",{encoded(last)[1:]}"

    def key(
        self,
        prompt: str,
        negative_prompt: str,
        seed: int,
        *,
        text_chunks: int | None = None,
        acting_syntax: str | None = None,
    ) -> str:
        """Return the key of one row.

        Args:
            prompt: The row's.
            negative_prompt: The row's.
            seed: The row's.
            text_chunks: The row's.
            acting_syntax: The row's, where one of its texts says more under it than its words do.
        """
        syntax = "" if acting_syntax is None else f',"prompt_syntax":{_quoted(acting_syntax)}'
        chunks = f',"text_chunks":{text_chunks}' if text_chunks and text_chunks > 1 else ""
        # In the order of the fields' names, as canonical JSON has them.
        rest = (
            f'{_quoted(negative_prompt)},"prompt":{_quoted(prompt)}{syntax}'
            f"{self._settings}{seed}{chunks}{self._end}"
        )
        key = self._begun.copy()
        key.update(rest.encode())
        return key.hexdigest()


_template = lru_cache(maxsize=1024)(KeyTemplate)


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
