"""Recipe ``mix-of-show``: gradient fusion in closed form (arXiv 2305.18292, section 4.2).

The published code minimises sum_i |W X_i - W_i X_i|^2 by L-BFGS from the base weights, layer by
layer and in this order: the text encoder; keys and values of cross-attention, on features of the
text encoder already fused; the other layers of the transformer blocks, on what they see while the
UNet, its keys and values already fused, samples one image of each concept. (A convolution, which
the published LoRAs do not change, is a linear layer of its window.) The sum is quadratic, so its
minimiser nearest to the base weights is a solve. That fits what was never seen as badly as what
was seen well, which L-BFGS avoids by ending early; here ``fuse_cutoff`` does.

LoRAs here are ordinary ones, the published code's "vanilla" path. An ED-LoRA would bring its own
token embeddings, one for each cross-attention layer, and these would be fused first.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from clora_core.diffusion.conditions import Conditions
from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.noise import initial_noise
from clora_core.diffusion.schedulers import make_solver
from clora_core.fuse.concept_text import conditions_of, features_of_words
from clora_core.fuse.ingredient import (
    KEYS_AND_VALUES,
    FusedAdapter,
    Ingredient,
    Layer,
    by_component,
    layers_of,
)
from clora_core.fuse.moments import Moments, recording
from clora_core.fuse.solve import SolvedLayer, least_squares
from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.factor import Factor
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.errors import FusionError

MAX_WIDTH = 8192
"""A layer's moments are a square of this side in float64, and are solved by eigenvalues."""


PROMPTS = ("photo of a {}", "{}")
"""Of the published code; it samples the image of a concept with the first."""


@torch.no_grad()
def fuse(
    model: DiffusionModel, ingredients: Sequence[Ingredient], config: SamplerConfig
) -> FusedAdapter:
    """Return the ingredients fused, of rank no more than theirs together.

    Args:
        model: Base model.
        ingredients: The concepts, in the row's order.
        config: The settings of ``methods.fused.MIX_OF_SHOW`` count.

    Raises:
        FusionError: A LoRA changes layers that are too wide to solve for; all are named.
    """
    layers = [
        layer for layer in layers_of(ingredients) if layer[0] == "unet" or config.text_encoder_lora
    ]
    _refuse_wide(model, layers)
    templates = config.fuse_prompts or PROMPTS
    prompts = [each.prompts(templates) for each in ingredients]
    texts = [layer for layer in layers if layer[0] != "unet"]
    words = [layer for layer in layers if layer[1].endswith(KEYS_AND_VALUES)]
    spatial = [layer for layer in layers if layer not in {*texts, *words}]
    solved: dict[Layer, SolvedLayer] = {}

    def solve(group: dict[Layer, Moments]) -> None:
        for layer, moments in group.items():
            module = model.components[layer[0]].get_submodule(layer[1])
            solved[layer] = _shaped(least_squares(moments, cutoff=config.fuse_cutoff), module)

    solve(_text_moments(model, ingredients, prompts, texts))
    solve(_word_moments(model, ingredients, prompts, words, _factors(solved), config))
    solve(
        _spatial_moments(
            model, ingredients, [p[0] for p in prompts], spatial, _factors(solved), config
        )
    )
    total = sum(each.scale for each in solved.values())
    left = sum(each.loss for each in solved.values())
    return FusedAdapter(
        factors=_factors(solved),
        final_loss=left / total if total else 0.0,
        unet_evaluations=len(ingredients) * config.mix_of_show_steps if spatial else 0,
    )


def _factors(solved: dict[Layer, SolvedLayer]) -> LoraFactors:
    return by_component({layer: each.factor for layer, each in solved.items()})


def _text_moments(
    model: DiffusionModel,
    ingredients: Sequence[Ingredient],
    prompts: Sequence[Sequence[str]],
    layers: Sequence[Layer],
) -> dict[Layer, Moments]:
    """Return moments of text encoder layers: every token of a concept's prompts, unpadded."""
    moments = _moments(model, ingredients, layers)
    for tower in model.towers:
        own = _named(moments, tower.name)
        for index, ingredient in enumerate(ingredients if own else ()):
            bank = LoraBank(tower.encoder, [_weighted(ingredient)], tower.name)
            for prompt in prompts[index]:
                ids = tower.tokenizer(prompt, truncation=True, return_tensors="pt").input_ids
                with bank.attached(), recording(tower.encoder, own, index):
                    bank.use(torch.ones(1, 1, device=model.device))
                    tower.encoder(ids.to(model.device))
    return moments


def _word_moments(
    model: DiffusionModel,
    ingredients: Sequence[Ingredient],
    prompts: Sequence[Sequence[str]],
    layers: Sequence[Layer],
    fused: LoraFactors,
    config: SamplerConfig,
) -> dict[Layer, Moments]:
    """Return moments of keys and values: the concept's own tokens and the end token."""
    moments = _moments(model, ingredients, layers)
    for index, ingredient in enumerate(ingredients if moments else ()):
        features = features_of_words(
            model, fused, ingredient.words, prompts[index], clip_skip=config.clip_skip
        )
        for layer in moments.values():
            layer.add(index, features)
    return moments


def _spatial_moments(
    model: DiffusionModel,
    ingredients: Sequence[Ingredient],
    prompts: Sequence[str],
    layers: Sequence[Layer],
    fused: LoraFactors,
    config: SamplerConfig,
) -> dict[Layer, Moments]:
    """Return moments of the other layers, over the sampling of one image of each concept."""
    moments = _moments(model, ingredients, layers)
    for index, ingredient in enumerate(ingredients if moments else ()):
        own = {name: factor for _, name in layers if (factor := ingredient.factor(("unet", name)))}
        mixed = LoraFactors({**fused.components, "unet": {**fused.of("unet"), **own}})
        bank = LoraBank(model.unet, [mixed], "unet")
        with bank.attached() if bank.num_layers else nullcontext():
            bank.use(torch.ones(1, 1, device=model.device))
            with recording(model.unet, _named(moments, "unet"), index):
                text = conditions_of(model, [mixed], [prompts[index]], clip_skip=config.clip_skip)
                _sample(model, text, config)
    return moments


def _sample(model: DiffusionModel, conditions: Conditions, config: SamplerConfig) -> None:
    """Run the UNet over one image's steps, without guidance, as published."""
    settings = SamplerConfig(
        scheduler="dpmpp",
        num_steps=config.mix_of_show_steps,
        guidance_scale=1.0,
        guide_until_step=0,
        refine_steps=(),
    )
    solver = make_solver(model.scheduler_config, settings, model.device)
    side = model.default_size_px
    latents = initial_noise(model, [0], side, side) * solver.init_noise_sigma
    for t in solver.timesteps:
        noise = model.run_unet(solver.scale_model_input(latents, t), t, conditions)
        latents = solver.step(noise, t, latents).prev_sample


def _weighted(ingredient: Ingredient) -> LoraFactors:
    return by_component(
        {
            layer: factor
            for layer in layers_of([ingredient])
            if (factor := ingredient.factor(layer)) is not None
        }
    )


def _moments(
    model: DiffusionModel, ingredients: Sequence[Ingredient], layers: Sequence[Layer]
) -> dict[Layer, Moments]:
    moments: dict[Layer, Moments] = {}
    for layer in layers:
        found = [each.matrices(layer) for each in ingredients]
        module = model.components[layer[0]].get_submodule(layer[1])
        moments[layer] = Moments(
            [None if pair is None else pair[0] for pair in found],
            [None if pair is None else pair[1] for pair in found],
            _width(module),
            model.device,
        )
    return moments


def _shaped(solved: SolvedLayer, module: Any) -> SolvedLayer:
    """Return the layer with its factors as the module's kind has them."""
    if not isinstance(module, nn.Conv2d):
        return solved
    down, up = solved.factor.down, solved.factor.up
    down = down.reshape(len(down), module.in_channels, *module.kernel_size)
    return replace(solved, factor=Factor(down, up[:, :, None, None], 1.0))


def _named(moments: dict[Layer, Moments], component: str) -> dict[str, Moments]:
    return {name: each for (owner, name), each in moments.items() if owner == component}


def _refuse_wide(model: DiffusionModel, layers: Sequence[Layer]) -> None:
    wide = [
        f"{component}.{name} ({width:,})"
        for component, name in layers
        if (width := _width(model.components[component].get_submodule(name))) > MAX_WIDTH
    ]
    if wide:
        raise FusionError(
            f"method 'mix-of-show' solves for layers of up to {MAX_WIDTH:,} inputs, and the row's "
            f"LoRAs change wider convolutions: {', '.join(wide)}; use LoRAs without convolutions "
            f"(trained without conv_dim), or another method"
        )


def _width(module: Any) -> int:
    """Return how many numbers go into one output: of a convolution those of its window."""
    return module.weight[0].numel()
