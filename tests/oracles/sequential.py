"""CLoRA in the order of its publication: one image, one variant, one forward pass at a time.

A plain reading of arXiv 2403.19776 and the code published with it: peft switches the adapters,
attention is written out in every layer, the loss is pytorch-metric-learning's, and one autograd
graph over all variants gives the gradient. Slow on purpose; what is fast is checked against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from oracles.explicit_attention import map_layers, mean_map, stored_attention
from oracles.peft_pipeline import (
    Conditioning,
    activate,
    encode,
    guide,
    initial_latents,
    loaded_loras,
    make_solver,
    predict,
)
from oracles.prompts import OracleVariant, oracle_variants
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor
from torch.nn import functional

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Row


@dataclass(kw_only=True)
class SequentialResult:
    """What one image's sampling gave.

    Attributes:
        latents: The end, [1, channel, height, width].
        losses: Before each latent update, in order.
        gradients: Of these losses, each of the latents' shape.
        maps: A step each: [variant, map height, map width, token], those the masks came from.
        masks: A step each: bool [variant, map height, map width].
        latents_after_step: The way there.
        unet_evaluations: Samples that went through the UNet.
    """

    latents: Tensor
    losses: list[float] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)
    maps: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    latents_after_step: list[Tensor] = field(default_factory=list)
    unet_evaluations: int = 0


def sequential_sample(pipeline: Any, row: Row) -> SequentialResult:
    """Sample one row of method ``clora`` or one of its ablations.

    Args:
        pipeline: From ``load_pipeline``, in the dtype to sample in; left as it was.
        row: What to make.
    """
    config = row.sampler
    updates = row.method in {"clora", "clora-no-mask"}
    masked = row.method in {"clora", "clora-no-update"}
    variants = oracle_variants(row.prompt, row.concepts, pipeline.tokenizer)
    guided = config.guidance_scale != 1
    layers, position_px = map_layers(pipeline.unet, config.map_size)
    solver = make_solver(pipeline, row)
    z = initial_latents(pipeline, row, solver)
    map_shape = (-(-z.shape[2] // position_px), -(-z.shape[3] // position_px))
    result = SequentialResult(latents=z)

    with loaded_loras(pipeline, row.loras) as names, stored_attention(pipeline.unet) as store:
        weighted = [(name, use.weight) for name, use in zip(names, row.loras, strict=True)]
        kinds = [use.kind for use in row.loras]
        concepts, styles = (
            [pair for pair, kind in zip(weighted, kinds, strict=True) if kind == wanted]
            for wanted in ("concept", "style")
        )
        adapters = [
            styles if variant.active is None else [concepts[variant.active], *styles]
            for variant in variants
        ]
        texts: list[Conditioning] = []
        for variant, active in zip(variants, adapters, strict=True):
            # Concepts may stay out of the text encoder; styles are heard in any case.
            activate(pipeline, active, in_text=None if config.text_encoder_lora else styles)
            texts.append(encode(pipeline, row, variant.text, guided=guided))

        def predict_all(z: Tensor, timestep: Tensor) -> tuple[list[Tensor], list[Tensor]]:
            predictions: list[Tensor] = []
            maps: list[Tensor] = []
            for active, text in zip(adapters, texts, strict=True):
                activate(pipeline, active)
                store.clear()
                predictions.append(predict(pipeline, solver, z, timestep, text))
                height, width = map_shape
                maps.append(
                    mean_map(store, layers, height=height, width=width, half=config.attention_half)
                )
                result.unet_evaluations += len(text.states)
            return predictions, maps

        for step, timestep in enumerate(solver.timesteps):
            z = z.detach()
            num_updates = _num_updates(step, config) if updates and len(row.concepts) > 1 else 0
            with torch.set_grad_enabled(num_updates > 0):
                z.requires_grad_(num_updates > 0)
                predictions, maps = predict_all(z, timestep)
                for update in range(num_updates):
                    if update > 0:
                        predictions, maps = predict_all(z, timestep)
                    loss = contrastive_loss(maps, variants, temperature=config.temperature)
                    (gradient,) = torch.autograd.grad(loss, z)
                    result.losses.append(loss.item())
                    result.gradients.append(gradient)
                    z = z.detach() - step_size(config, solver, step) * gradient
                    z.requires_grad_(True)
            z = z.detach()
            with torch.no_grad():
                if num_updates and config.reforward_after_update:
                    predictions, maps = predict_all(z, timestep)
                predictions = [prediction.detach() for prediction in predictions]
                maps = [maps_of_variant.detach() for maps_of_variant in maps]
                if masked and step >= config.mask_from_step:
                    masks = concept_masks(maps, variants, config)
                else:
                    masks = torch.ones(len(variants), *map_shape, dtype=torch.bool, device=z.device)
                noise = guide(blend(predictions, masks), config.guidance_scale)
                z = solver.step(noise, timestep, z, return_dict=False)[0]
            result.maps.append(torch.stack(maps))
            result.masks.append(masks)
            result.latents_after_step.append(z)
    result.latents = z
    return result


def _num_updates(step: int, config: SamplerConfig) -> int:
    if step >= config.guide_until_step:
        return 0
    return 1 + config.num_refine_updates if step in config.refine_steps else 1


def step_size(config: SamplerConfig, solver: Any, step: int) -> float:
    """Return the factor of the gradient; solvers that scale latents by noise scale it too."""
    if config.scheduler != "euler":
        return config.step_size
    return config.step_size * (float(solver.sigmas[step]) ** 2 + 1)


def contrastive_loss(
    maps: Sequence[Tensor], variants: Sequence[OracleVariant], *, temperature: float
) -> Tensor:
    """Return the NT-Xent loss of all words' maps over all variants, labelled by concept.

    Args:
        maps: A variant each: [map height, map width, token].
        variants: Where the words are.
        temperature: Of the softmax.
    """
    rows: list[Tensor] = []
    labels: list[int] = []
    for concept in range(len(variants[0].words)):
        for maps_of_variant, variant in zip(maps, variants, strict=True):
            for position in variant.words[concept]:
                values = maps_of_variant[:, :, position].flatten()
                rows.append((values - values.min()) / (values.max() - values.min()))
                labels.append(concept)
    return NTXentLoss(temperature=temperature)(
        torch.stack(rows), torch.tensor(labels, device=rows[0].device)
    )


def concept_masks(
    maps: Sequence[Tensor], variants: Sequence[OracleVariant], config: SamplerConfig
) -> Tensor:
    """Return where each variant's prediction counts, bool [variant, map height, map width]."""
    masks: list[Tensor] = []
    for maps_of_variant, variant in zip(maps, variants, strict=True):
        mask = torch.zeros_like(maps_of_variant[:, :, 0], dtype=torch.bool)
        if variant.active is not None:
            for position in variant.words[variant.active]:
                values = maps_of_variant[:, :, position]
                mask = mask | (values > config.mask_threshold * values.max())
            if config.mask_morphology:
                mask = _clean(mask)
        masks.append(mask)
    masks[0] = ~torch.stack(masks).any(dim=0)
    return torch.stack(masks)


def _clean(mask: Tensor) -> Tensor:
    """Dilate, erode, open and close by 3x3; what lies outside the map has no say."""

    def dilate(values: Tensor) -> Tensor:
        return functional.max_pool2d(values, 3, stride=1, padding=1)

    def erode(values: Tensor) -> Tensor:
        return -functional.max_pool2d(-values, 3, stride=1, padding=1)

    values = mask[None, None].float()
    values = erode(dilate(values))
    values = dilate(erode(values))
    values = erode(dilate(values))
    return values[0, 0].bool()


def blend(predictions: Sequence[Tensor], masks: Tensor) -> Tensor:
    """Return the mean prediction over the variants whose mask holds, pixel by pixel.

    Args:
        predictions: A variant each: [halves, channel, height, width].
        masks: [variant, map height, map width].
    """
    weighted: Tensor | float = 0.0
    total: Tensor | float = 0.0
    for prediction, mask in zip(predictions, masks, strict=True):
        weight = functional.interpolate(
            mask[None, None].to(prediction.dtype), size=prediction.shape[2:], mode="nearest"
        )
        weighted = weighted + weight * prediction
        total = total + weight
    return weighted / total
