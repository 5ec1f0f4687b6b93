"""The layers that a LoRA file changes, by what the file itself says, where no base model is named.

Names stay as the file has them. Most tensors say the shape of their layer's weight; where they
don't, or where an update depends on the base model's weights, there is no way around the model.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.names import split_layer_name
from clora_core.recipe.lora.placement import ModelLayers
from clora_core.recipe.lora.shapes.size import Shape

_COMPONENTS = frozenset({"unet", "text_encoder", "text_encoder_2"})
_ONE_PIXEL = re.compile(r"[._]conv_shortcut$")
_KERNEL = re.compile(r"[._]conv(?:\d|_in|_out)?$")
_PROJECTION = re.compile(r"[._]proj_(?:in|out)$")


def own_model(path: str | Path, layers: Sequence[LoraLayer], family: str) -> ModelLayers:
    """Return as much of a base model as the file's layers say, under their own names.

    Args:
        path: The file, for messages.
        layers: Of the file.
        family: Of base models, where it is known: in SD 1.x projections are convolutions.

    Raises:
        LoraFileError: A base model has to be named; the message says why.
    """
    shapes: dict[str, dict[str, Shape]] = {}
    for layer in layers:
        if layer.component not in _COMPONENTS:
            raise LoraFileError(
                f"{path} changes a part of a model that is not known here ({layer.component}); "
                "LoRAs of SD 1.x, SD 2.x and SDXL are converted"
            )
        if layer.needs_base_weights:
            raise LoraFileError(
                f"{path} changes {layer.name[:200]!r} by an amount that depends on the base "
                "model's weights; name the base model with --base-model"
            )
        shape = _shape(layer, family)
        if shape is None:
            raise LoraFileError(
                f"{path} does not say whether {layer.name[:200]!r} has a kernel; name the base "
                "model with --base-model"
            )
        _, rest = split_layer_name(layer.name)
        name = rest if layer.dotted_name is not None else rest.replace(".", "_")
        shapes.setdefault(layer.component, {})[name] = shape
    return ModelLayers(shapes)


def has_diffusers_names(model: ModelLayers) -> bool:
    """Return whether layers have dots and are called as diffusers calls them."""
    return all(
        "." in name and not name.startswith(("input_blocks.", "output_blocks.", "middle_block."))
        for layers in model.shapes.values()
        for name in layers
    )


def _shape(layer: LoraLayer, family: str) -> Shape | None:
    size, whole = layer.size, layer.shapes.get("diff")
    if whole is not None:
        return whole
    if size.out_features is None or size.in_features is None:
        return None if size.out_features is None else (size.out_features,)
    if size.kernel is not None:
        return (size.out_features, size.in_features, *size.kernel)
    if _KERNEL.search(layer.flat_name):
        return None
    is_convolution = _ONE_PIXEL.search(layer.flat_name) or (
        family == "SD1.x" and _PROJECTION.search(layer.flat_name)
    )
    ones = (1, 1) if is_convolution else ()
    return (size.out_features, size.in_features, *ones)
