"""Recipe ``custom-diffusion``: the merge in closed form (arXiv 2212.04488, section 3.2).

For every matrix of cross-attention keys and values: each concept's words keep what its own model
makes of them, and regularisation captions move as little as possible. A Custom Diffusion model has
changed nothing else. The other layers of a LoRA are added up here, as method ``merge`` does.
"""

from collections.abc import Sequence

import torch

from clora_core.diffusion.model import DiffusionModel
from clora_core.fuse.captions import CAPTIONS
from clora_core.fuse.concept_text import caption_features, features_of_words
from clora_core.fuse.ingredient import (
    KEYS_AND_VALUES,
    FusedAdapter,
    Ingredient,
    Layer,
    by_component,
    layers_of,
    summed,
)
from clora_core.fuse.solve import SolvedLayer, constrained
from clora_core.lora.kinds.factor import Factor
from clora_core.recipe.config import SamplerConfig

PROMPTS = ("{}", "a photo of {}")
"""Of the published code."""


@torch.no_grad()
def fuse(
    model: DiffusionModel, ingredients: Sequence[Ingredient], config: SamplerConfig
) -> FusedAdapter:
    """Return the ingredients fused, of their ranks together.

    Args:
        model: Base model.
        ingredients: The concepts, in the row's order.
        config: The settings of ``methods.fused.CUSTOM_DIFFUSION`` count.

    Raises:
        PromptError: A concept's words are more than the text encoder reads.
    """
    layers = layers_of(ingredients)
    words = [layer for layer in layers if layer[1].endswith(KEYS_AND_VALUES)]
    fused: dict[Layer, Factor] = {
        layer: summed(ingredients, layer)
        for layer in layers
        if layer not in words and (layer[0] == "unet" or config.text_encoder_lora)
    }
    others = by_component(fused)
    solved: list[SolvedLayer] = []
    if words:
        templates = config.fuse_prompts or PROMPTS
        targets = [
            features_of_words(
                model, others, each.words, each.prompts(templates), clip_skip=config.clip_skip
            )
            for each in ingredients
        ]
        captions = caption_features(
            model,
            others,
            config.custom_diffusion_captions or CAPTIONS,
            clip_skip=config.clip_skip,
        )
        for layer in words:
            found = [each.matrices(layer) for each in ingredients]
            solved.append(
                constrained(
                    [None if pair is None else pair[0].to(model.device) for pair in found],
                    [None if pair is None else pair[1].to(model.device) for pair in found],
                    [target.double() for target in targets],
                    captions,
                    cutoff=config.fuse_cutoff,
                )
            )
            fused[layer] = solved[-1].factor
    scale = sum(each.scale for each in solved)
    loss = sum(each.loss for each in solved)
    return FusedAdapter(factors=by_component(fused), final_loss=loss / scale if scale else 0.0)
