"""A fused adapter as a LoRA file, in the spelling of peft or of kohya, which other tools load.

Scales are in the factors, so a reader must not scale again. Readers of peft's spelling take one
rank for a whole component and scale layers of another rank by their ratio, so all layers of a
component are written with the largest rank, filled up with zeros. kohya's files have an alpha for
each layer, which is its rank.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from clora_core.fuse.ingredient import FusedAdapter, Layer, by_component
from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.factor import Factor
from clora_core.recipe.errors import FusionError

Naming = Literal["peft", "kohya"]

METADATA_KEY = "clora_fused"

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


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
    tensors = (
        _peft_tensors(adapter.factors)
        if naming == "peft"
        else _kohya_tensors(adapter.factors, is_xl=is_xl)
    )
    cast = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    _check(cast, dtype)
    provenance = {
        **facts,
        "final_loss": adapter.final_loss,
        "losses": list(adapter.losses),
        "tensors_sha256": tensors_digest(cast),
    }
    metadata = {
        "format": "pt",
        METADATA_KEY: json.dumps(provenance, sort_keys=True),
        "modelspec.title": title,
        "modelspec.description": f"Fused from several LoRAs; what went in is in {METADATA_KEY}.",
    }
    if naming == "kohya":
        ranks = [factor.rank for factor in adapter.factors.as_factors().values()]
        metadata |= {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(max(ranks, default=0)),
            "ss_network_alpha": str(max(ranks, default=0)),
        }
    return save(cast, metadata)


def _check(tensors: Mapping[str, Float[Tensor, "..."]], dtype: torch.dtype) -> None:
    if not tensors:
        raise FusionError(
            "the LoRAs change nothing that is fused: with text_encoder_lora off, layers of text "
            "encoders are left out; turn it on, or use LoRAs that change the UNet"
        )
    wrong = sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
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
        if name.endswith(_DOWN):
            stem = name.removesuffix(_DOWN)
            component, _, layer = stem.partition(".")
            factors[component, layer] = Factor(tensors[name], tensors[f"{stem}{_UP}"], 1.0)
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


def tensors_digest(tensors: Mapping[str, Float[Tensor, "..."]]) -> str:
    """Return the sha256 (hex) of all tensors with their names, by which damage is found."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _peft_tensors(factors: LoraFactors) -> dict[str, Float[Tensor, "..."]]:
    tensors: dict[str, Float[Tensor, "out ..."]] = {}
    layers = factors.as_factors()
    ranks: dict[str, int] = {}
    for (component, _), factor in layers.items():
        ranks[component] = max(factor.rank, ranks.get(component, 0))
    for (component, name), factor in layers.items():
        tensors[f"{component}.{name}{_DOWN}"] = _filled(factor.down, 0, ranks[component])
        up = factor.up * factor.scale
        tensors[f"{component}.{name}{_UP}"] = _filled(up, 1, ranks[component])
    return tensors


def _kohya_tensors(factors: LoraFactors, *, is_xl: bool) -> dict[str, Float[Tensor, "..."]]:
    towers = {"text_encoder": "lora_te1" if is_xl else "lora_te", "text_encoder_2": "lora_te2"}
    prefixes = {"unet": "lora_unet", **towers}
    tensors: dict[str, Float[Tensor, "out ..."]] = {}
    for (component, name), factor in factors.as_factors().items():
        stem = f"{prefixes[component]}_{_with_text_model(component, name).replace('.', '_')}"
        tensors[f"{stem}.lora_down.weight"] = factor.down
        tensors[f"{stem}.lora_up.weight"] = factor.up * factor.scale
        tensors[f"{stem}.alpha"] = torch.tensor(float(factor.rank))
    return tensors


def _with_text_model(component: str, name: str) -> str:
    """Return a layer's name with the level that trainers write, whether or not the model has it."""
    if component == "unet" or name.startswith("text_model."):
        return name
    return f"text_model.{name}"


def _filled(factor: Float[Tensor, "..."], axis: int, rank: int) -> Float[Tensor, "..."]:
    shape = list(factor.shape)
    shape[axis] = rank - shape[axis]
    return torch.cat([factor, factor.new_zeros(shape)], dim=axis)
