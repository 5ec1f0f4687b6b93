"""The gated methods in their order: one row, one half, one pass at a time.

A plain reading of the definitions of ``clora-gated``, ``freefuse`` and ``merge`` with regions: the
pass is that of ``gated_pass``, masks are those of ``mask_loops``, autograd goes through the whole
pass. Slow on purpose; what is fast is checked against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from oracles.explicit_attention import map_layers, mean_map, stored_attention
from oracles.gated_parts import parts_of, word_bias
from oracles.gated_pass import GatedPass
from oracles.mask_loops import Grid, grid_of, loop_claims, loop_region, loop_shares
from oracles.peft_pipeline import (
    activate_in_text,
    encode,
    guide,
    initial_latents,
    loaded_loras,
    make_solver,
    predict,
)
from oracles.prompts import oracle_variant
from oracles.sequential import contrastive_loss, step_size
from torch import Tensor

from clora_core.recipe.row import Row


@dataclass(kw_only=True)
class GatedResult:
    """What one image's sampling gave.

    Attributes:
        latents: The end, [1, channel, height, width].
        losses: Before each latent update, in order.
        masks: Each step's, [part, latent height, latent width].
    """

    latents: Tensor
    losses: list[float] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """Where masks come from; ``source`` is empty where regions alone make them."""

    source: str
    kind: str
    first: str
    until_step: int
    base_steps: int


def gated_sample(pipeline: Any, row: Row) -> GatedResult:
    """Sample one row of a gated method.

    Args:
        pipeline: From ``load_pipeline``, in the dtype to sample in; left as it was.
        row: What to make; regions are boxes.
    """
    config, rules = row.sampler, _rules(row)
    parts = parts_of(row, pipeline.tokenizer)
    layers, position_px = _map_layers(pipeline.unet, config.map_size)
    solver = make_solver(pipeline, row)
    z = initial_latents(pipeline, row, solver)
    height, width = z.shape[2:]
    map_shape = (-(-height // position_px), -(-width // position_px))
    own_regions = [row.concepts[part.variant.active].region for part in parts[1:]]
    regions = [loop_region(region and region.box, height, width) for region in own_regions]
    replaced = [
        region is not None and (region.mode == "replace" or not rules.source)
        for region in own_regions
    ]
    guided = config.guidance_scale != 1
    halves = [0, 1] if guided else [0]
    counted = halves if config.attention_half == "both" else halves[-1:]
    result = GatedResult(latents=z)

    def claims_of(words: list[list[Grid]], features: Tensor | None) -> list[Grid]:
        seen = None if features is None else features.detach().tolist()
        claimed = loop_claims(
            words,
            seen,
            source=rules.source,
            kind=rules.kind,
            threshold=config.mask_threshold,
            smoothing=config.gate_mask_smoothing if row.method != "freefuse" else 0.0,
            fill_holes=config.gate_mask_fill_holes,
        )
        return loop_shares(claimed, regions, replaced)

    with loaded_loras(pipeline, row.loras) as names:
        texts = []
        for part in parts:
            activate_in_text(pipeline, list(zip(names, part.text_weights, strict=True)))
            texts.append(encode(pipeline, row, part.variant.text, guided=guided))
        activate_in_text(pipeline, [])
        nothing = grid_of(height, width, float(rules.first == "shared"))
        masks = loop_shares([nothing] * len(regions), regions, replaced)
        follows = bool(rules.source) and not all(replaced) and not rules.base_steps
        if rules.base_steps and not all(replaced):
            masks = claims_of(*_base_steps(pipeline, row, rules, layers, map_shape))
        lane = GatedPass(
            unet=pipeline.unet,
            adapters=names,
            parts=parts,
            texts=texts,
            only_attention=row.method == "freefuse",
            word_bias=word_bias(row, parts),
            feature_layer=similarity_block(layers) + ".attn1.processor",
        )

        def run(z: Tensor, timestep: Tensor) -> tuple[Tensor, list[Tensor], Tensor | None]:
            """Return the predictions of both halves, every part's maps, and the features."""
            model_input = solver.scale_model_input(z, timestep)
            predictions, maps = [], []
            for half in halves:
                predictions.append(lane.predict(model_input, timestep, half, masks))
                if half in counted:
                    maps.append(
                        [
                            sum(lane.maps[name][part] for name in layers) / len(layers)
                            for part in range(len(parts))
                        ]
                    )
            means = [
                (sum(each) / len(maps)).unflatten(0, map_shape) for each in zip(*maps, strict=True)
            ]
            return torch.cat(predictions), means, lane.features

        def words_in(maps: Sequence[Tensor]) -> list[list[Grid]]:
            own = rules.source == "own"
            return [
                [
                    maps[number if own else 0][:, :, token].detach().tolist()
                    for token in parts[number if own else 0].variant.words[part.variant.active]
                ]
                for number, part in enumerate(parts)
                if number > 0
            ]

        with lane.attached():
            for step, timestep in enumerate(solver.timesteps):
                if step == 0 and follows and rules.first == "maps":
                    with torch.no_grad():
                        _, maps, features = run(z, timestep)
                    masks = claims_of(words_in(maps), features)
                result.masks.append(torch.tensor(masks))
                updates = _updates(row, step)
                z = z.detach().requires_grad_(updates)
                with torch.set_grad_enabled(updates):
                    predictions, maps, features = run(z, timestep)
                    if updates:
                        variants = [part.variant for part in parts]
                        loss = contrastive_loss(maps, variants, temperature=config.temperature)
                        (gradient,) = torch.autograd.grad(loss, z)
                        result.losses.append(loss.item())
                        z = z - step_size(config, solver, step) * gradient
                z = z.detach()
                with torch.no_grad():
                    if updates and config.reforward_after_update:
                        predictions, maps, features = run(z, timestep)
                    noise = guide(predictions.detach(), config.guidance_scale)
                    z = solver.step(noise, timestep, z, return_dict=False)[0]
                if follows and step + 1 < rules.until_step:
                    masks = claims_of(words_in(maps), features)
    result.latents = z
    return result


@lru_cache(maxsize=8)
def _map_layers(unet: Any, map_size: int | None) -> tuple[list[str], int]:
    return map_layers(unet, map_size)


def _updates(row: Row, step: int) -> bool:
    config = row.sampler
    if row.method != "clora-gated" or len(row.concepts) < 2:
        return False
    until = config.gate_update_until * config.num_steps
    return step < until and step % config.gate_update_every == 0


def _rules(row: Row) -> _Rules:
    config = row.sampler
    last = config.num_steps
    if row.method == "merge":
        return _Rules(source="", kind="", first="base", until_step=0, base_steps=0)
    if row.method == "freefuse":
        steps = min(config.freefuse_steps, last)
        return _Rules(source="self", kind="balanced", first="", until_step=0, base_steps=steps)
    until = config.gate_masks_until_step
    return _Rules(
        source=config.gate_mask_source,
        kind=config.gate_mask_kind,
        first=config.gate_first_mask,
        until_step=last if until is None else until,
        base_steps=min(config.gate_base_steps, last),
    )


def similarity_block(layers: Sequence[str]) -> str:
    """Return the block whose features count: the fourth, or the last, of the first attention up."""
    upwards = [name for name in layers if name.startswith("up_blocks")] or list(layers)
    first = upwards[0].partition(".transformer_blocks.")[0]
    blocks = [name for name in upwards if name.partition(".transformer_blocks.")[0] == first]
    return blocks[:4][-1].removesuffix(".attn2.processor")


def _base_steps(
    pipeline: Any, row: Row, rules: _Rules, layers: list[str], map_shape: tuple[int, int]
) -> tuple[list[list[Grid]], Tensor]:
    """Return the words' maps and the features of the base model's last step."""
    guided = row.sampler.guidance_scale != 1
    variant = oracle_variant(row.prompt, row.concepts, pipeline.tokenizer, [], None)
    text = encode(pipeline, row, variant.text, guided=guided)
    solver = make_solver(pipeline, row)
    z = initial_latents(pipeline, row, solver)
    kept: dict[str, Tensor] = {}
    block = similarity_block(layers)

    def keep(_module: Any, _args: Any, output: Tensor) -> None:
        kept["features"] = output[-1]

    handle = pipeline.unet.get_submodule(block + ".attn1").register_forward_hook(keep)
    try:
        with torch.no_grad(), stored_attention(pipeline.unet) as store:
            for timestep in solver.timesteps[: rules.base_steps]:
                predictions = predict(pipeline, solver, z, timestep, text)
                noise = guide(predictions, row.sampler.guidance_scale)
                z = solver.step(noise, timestep, z, return_dict=False)[0]
            chosen = [name for name in layers if rules.source != "self" or block in name]
            height, width = map_shape
            half = row.sampler.attention_half
            maps = mean_map(store, chosen, height=height, width=width, half=half)
    finally:
        handle.remove()
    words = [[maps[:, :, token].tolist() for token in tokens] for tokens in variant.words]
    return words, kept["features"]
