"""Fusing, by the name of the method whose recipe it is."""

from collections.abc import Sequence

from clora_core.diffusion.model import DiffusionModel
from clora_core.fuse import custom_diffusion, mix_of_show, ziplora
from clora_core.fuse.ingredient import DrawImages, FusedAdapter, Ingredient
from clora_core.recipe.config import SamplerConfig


def fuse(
    method: str,
    model: DiffusionModel,
    ingredients: Sequence[Ingredient],
    config: SamplerConfig,
    draw: DrawImages,
) -> FusedAdapter:
    """Return ``ingredients`` fused as ``method`` does.

    Args:
        method: A name of ``METHODS`` whose ``fused_by`` is set.
        model: Base model.
        ingredients: The row's concepts, in its order.
        config: Settings.
        draw: Makes images of one ingredient alone, where the recipe needs some.

    Raises:
        CompositionError: The LoRAs cannot be fused so.
    """
    match method:
        case "mix-of-show":
            return mix_of_show.fuse(model, ingredients, config)
        case "custom-diffusion":
            return custom_diffusion.fuse(model, ingredients, config)
        case "ziplora":
            return ziplora.fuse(model, ingredients, config, draw)
        case _:
            raise ValueError(f"method {method!r} fuses nothing")
