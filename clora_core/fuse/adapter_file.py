"""A fused adapter as a LoRA file, with what it was made of and how in the metadata.

Scales are in the factors, so a reader must not scale again.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from clora_core.fuse.ingredient import FusedAdapter, Layer, by_component
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.plain_file import (
    DOWN,
    UP,
    Naming,
    not_finite,
    plain_metadata,
    plain_tensors,
    tensors_digest,
)
from clora_core.recipe.errors import FusionError

METADATA_KEY = "clora_fused"


def encode_adapter(
    adapter: FusedAdapter,
    facts: Mapping[str, object],
    *,
    naming: Naming = "peft",
    dtype: torch.dtype = torch.float32,
    is_xl: bool = False,
    title: str = "",
) -> bytes:
    """Return the adapter as a safetensors file.

    Args:
        adapter: The adapter.
        facts: What it was made of and how; becomes JSON in the file's metadata.
        naming: Whose names the tensors get.
        dtype: Of the tensors.
        is_xl: The base model is Stable Diffusion XL, where kohya numbers the text encoders.
        title: What galleries and tools call it.

    Raises:
        FusionError: There is nothing in it, or a value is not finite, in this dtype at least.
    """
    cast = plain_tensors(adapter.factors, naming=naming, dtype=dtype, is_xl=is_xl)
    _check(cast, dtype)
    provenance = {
        **facts,
        "final_loss": adapter.final_loss,
        "losses": list(adapter.losses),
        "tensors_sha256": tensors_digest(cast),
    }
    metadata = {
        **plain_metadata(adapter.factors, naming),
        METADATA_KEY: json.dumps(provenance, sort_keys=True),
        "modelspec.title": title,
        "modelspec.description": f"Fused from several LoRAs; what went in is in {METADATA_KEY}.",
    }
    return save(cast, metadata)


def _check(tensors: Mapping[str, Float[Tensor, "..."]], dtype: torch.dtype) -> None:
    if not tensors:
        raise FusionError(
            "the LoRAs change nothing that is fused: with text_encoder_lora off, layers of text "
            "encoders are left out; turn it on, or use LoRAs that change the UNet"
        )
    wrong = not_finite(tensors)
    if wrong:
        kind = str(dtype).removeprefix("torch.")
        raise FusionError(
            f"{len(wrong):,} of {len(tensors):,} tensors hold values that are not finite in "
            f"{kind}, the first is {wrong[0]}; use float32, or for 'mix-of-show' and "
            "'custom-diffusion' raise fuse_cutoff"
        )


def decode_adapter(content: bytes) -> tuple[FusedAdapter, dict[str, Any]]:
    """Return the adapter that ``encode_adapter`` wrote with peft's names, and its facts.

    Raises:
        ValueError, KeyError: It is no such file.
    """
    facts = provenance_of(content)
    factors: dict[Layer, Factor] = {}
    tensors = load(content)
    for name in tensors:
        if name.endswith(DOWN):
            stem = name.removesuffix(DOWN)
            component, _, layer = stem.partition(".")
            factors[component, layer] = Factor(tensors[name], tensors[f"{stem}{UP}"], 1.0)
    adapter = FusedAdapter(
        factors=by_component(factors),
        final_loss=facts["final_loss"],
        losses=tuple(facts["losses"]),
    )
    return adapter, facts


def provenance_of(content: bytes) -> dict[str, Any]:
    """Return the facts that ``encode_adapter`` wrote into a file.

    Raises:
        ValueError, KeyError: It is no such file.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return json.loads(header["__metadata__"][METADATA_KEY])
