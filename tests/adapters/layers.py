"""The layers that cases change: one of each sort that trainers train, in every base model.

A sort that a base model lacks (SDXL's projections are linear) is simply not among them.
"""

from collections.abc import Iterable
from pathlib import Path

from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from adapters.case import AdapterCase, Components, Layer

_BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
IN_TRANSFORMER = (
    f"{_BLOCK}.attn1.to_q",
    f"{_BLOCK}.attn2.to_k",
    f"{_BLOCK}.attn1.to_out.0",
    f"{_BLOCK}.ff.net.0.proj",
    "down_blocks.1.attentions.0.proj_in",
)
IN_RESIDUAL = (
    "down_blocks.1.resnets.0.time_emb_proj",
    "down_blocks.1.resnets.0.conv1",
    "up_blocks.0.resnets.0.conv_shortcut",
    "down_blocks.0.downsamplers.0.conv",  # strided
    "up_blocks.0.upsamplers.0.conv",
)
AROUND = ("time_embedding.linear_1", "add_embedding.linear_1", "conv_in", "conv_out")
"""What trainers with blocks of their own choice leave alone."""

NORMS = (
    "down_blocks.1.attentions.0.norm",
    f"{_BLOCK}.norm1",
    "down_blocks.1.resnets.0.norm1",
    "mid_block.resnets.0.norm2",
    "conv_norm_out",
)
IN_TEXT = ("encoder.layers.0.self_attn.q_proj", "encoder.layers.1.mlp.fc1")
TEXT_NORMS = ("encoder.layers.0.layer_norm1",)
TEXT_PROJECTION = ("text_projection",)


def read_components(folder: Path) -> Components:
    """Return the models of a base model in diffusers' layout that adapters change."""
    found = {
        "unet": UNet2DConditionModel.from_pretrained(folder / "unet"),
        "text_encoder": CLIPTextModel.from_pretrained(folder / "text_encoder"),
    }
    if (folder / "text_encoder_2").is_dir():
        second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2")
        found["text_encoder_2"] = second
    return found


def layers_named(
    components: Components, names: Iterable[str], *, text: Iterable[str] = ()
) -> list[Layer]:
    """Return the layers of these names that the base model has.

    Args:
        components: Of the base model.
        names: In the UNet.
        text: In each text encoder, without the level ``text_model``.
    """
    found: list[Layer] = []
    for component, model in components.items():
        modules = dict(model.named_modules())
        for name in names if component == "unet" else text:
            own = name if name in modules else f"text_model.{name}"
            if own in modules:
                found.append(Layer(component, own, model))
    return found


def chosen(case: AdapterCase, components: Components, layers: Iterable[Layer]) -> list[Layer]:
    """Return ``layers``, or those that the case names itself."""
    if case.places is None:
        return list(layers)
    return [Layer(component, name, components[component]) for component, name in case.places]


def with_kernel(layers: Iterable[Layer], *, wide: bool) -> list[Layer]:
    """Return the convolutions wider than a pixel, or what is none."""
    return [layer for layer in layers if any(side > 1 for side in layer.kernel) is wide]
