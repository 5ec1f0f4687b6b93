"""kohya's sd-scripts: LoRA with and without convolutions, DyLoRA, LoRA-FA and its own OFT.

Written from networks/lora.py, dylora.py (state_dict), lora_fa.py and oft.py. LoRA-FA and DyLoRA
write the same tensors as LoRA. SDXL is trained with sd-scripts' own UNet, which has Stability's
names; Stable Diffusion 1.5 with one that has diffusers'. OFT trains no text encoder.
"""

import sys
from pathlib import Path

import torch

from adapters.case import (
    AdapterCase,
    Components,
    Effect,
    Expected,
    Layer,
    Parts,
    Trainer,
    always,
    write_by_layer,
)
from adapters.factors import Source, rotation_spread, to_share
from adapters.layers import IN_RESIDUAL, IN_TEXT, IN_TRANSFORMER, chosen, layers_named, with_kernel
from adapters.loops import low_rank, rotated_outputs
from adapters.spellings import kohya_flat

OFT_CONSTRAINT = 0.02


def layers(case: AdapterCase, components: Components) -> list[Layer]:
    names = IN_TRANSFORMER if case.kind in ("lora", "lora-fa") else (*IN_TRANSFORMER, *IN_RESIDUAL)
    text = () if case.kind == "oft" else IN_TEXT
    found = chosen(case, components, layers_named(components, names, text=text))
    return with_kernel(found, wide=False) if case.kind in ("lora", "lora-fa") else found


def name(case: AdapterCase, layer: Layer) -> str:
    prefix = "oft" if case.kind == "oft" else "lora"
    return kohya_flat(layer, case.family, sgm=case.family == "sdxl", prefix=prefix)


def parts(case: AdapterCase, layer: Layer) -> Parts:
    source = Source(case, layer)
    out, *rest = layer.weight.shape
    if case.kind == "oft":  # ``network_dim`` is the number of blocks
        side = out // case.rank
        blocks = source.normal("oft_blocks", (case.rank, side, side)) * rotation_spread(side)
        return {"oft_blocks": blocks, "alpha": torch.tensor(OFT_CONSTRAINT)}
    return low_rank_parts(source, layer, (out, *rest), case.rank, alpha=case.rank / 2)


def low_rank_parts(
    source: Source, layer: Layer, shape: tuple[int, ...], rank: int, *, alpha: float | None
) -> Parts:
    """Return LoRA factors under kohya's names.

    Args:
        source: Of the numbers.
        layer: That they are for.
        shape: Of the weight, as the trainer cuts it.
        rank: Of the factors.
        alpha: None to write none; then the strength is 1.
    """
    out, *rest = shape
    written: Parts = {
        "lora_down.weight": source.normal("down", (rank, *rest)),
        "lora_up.weight": source.normal("up", (out, rank, *(1 for _ in rest[1:]))),
    }
    if alpha is not None:
        written["alpha"] = torch.tensor(float(alpha))
    return to_share(written, ["lora_up.weight"], lambda p: low_rank_effect(layer, p), layer)


def low_rank_effect(layer: Layer, written: Parts) -> Effect:
    """Return what factors under kohya's names do; without an alpha at strength 1."""
    down, up = written["lora_down.weight"].double(), written["lora_up.weight"].double()
    rank = down.shape[0]
    scale = float(written.get("alpha", torch.tensor(float(rank)))) / rank
    return Effect(low_rank(up, down, scale, layer.weight.shape))


def effect(case: AdapterCase, layer: Layer, written: Parts) -> Effect:
    if case.kind != "oft":
        return low_rank_effect(layer, written)
    limit = float(written["alpha"]) * layer.weight.shape[0]
    turned = rotated_outputs(layer.weight, written["oft_blocks"], limit, eps_as_kohya=True)
    return Effect(turned - layer.weight)


def write(folder: Path, case: AdapterCase, components: Components) -> Expected:
    return write_by_layer(sys.modules[__name__], folder, case, components)


KOHYA = Trainer(
    name="kohya sd-scripts",
    kinds=("lora", "locon", "lora-fa", "dylora", "oft"),
    spellings=("kohya",),
    layers=layers,
    write=write,
    why_not=always,
)
