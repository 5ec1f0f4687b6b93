"""The denoising loop: every method, every row of a batch, one loop.

Order of one step (arXiv 2403.19776, section 3, as published): predictions and maps at the current
latents; latent updates along the loss gradient; masks and the blend from the maps and predictions
of the last round, which precede its update; guidance; one solver step on the updated latents.

A row's noise comes from its own generator on the CPU, and nothing is reduced over rows, so that a
row's image does not depend on the batch it travels in beyond rounding.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clora_core.diffusion.attention import capturing
from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.schedulers import Solver, make_solver
from clora_core.lora.bank import LoraBank
from clora_core.sampling.guidance import update_round
from clora_core.sampling.lanes import Half, LaneBatch
from clora_core.sampling.masks import (
    blend,
    clean,
    concept_masks,
    coverage_and_overlap,
    leakage,
    own_maps,
    within_regions,
)
from clora_core.sampling.passes import LanePasses, Pass, PassInputs


@dataclass
class Trace:
    """What happened, per row; tensors stay on the device until the end.

    Attributes:
        losses: One entry per latent update.
        coverage: Mask coverage, one entry per step.
        overlap: Mask overlap, one entry per step.
        leakage: Share of each concept's attention outside its mask, one entry per masked step.
        evaluations: UNet passes of one row.
        keep_maps: Keep maps and masks too.
        maps: Each concept's own maps, one entry per masked step.
        masks: Masks, likewise.
    """

    losses: list[Float[Tensor, " row"]] = field(default_factory=list)
    coverage: list[Float[Tensor, "row concept"]] = field(default_factory=list)
    overlap: list[Float[Tensor, " row"]] = field(default_factory=list)
    leakage: list[Float[Tensor, "row concept"]] = field(default_factory=list)
    evaluations: int = 0
    keep_maps: bool = False
    maps: list[Float[Tensor, "row concept height width"]] = field(default_factory=list)
    masks: list[Bool[Tensor, "row variant height width"]] = field(default_factory=list)


def initial_noise(
    model: DiffusionModel, seeds: Sequence[int], height_px: int, width_px: int
) -> Float[Tensor, "row channel height width"]:
    """Return each row's starting noise of unit variance, drawn on the CPU in float32."""
    shape = (1, model.latent_channels, *model.latent_shape(width_px, height_px))
    noise = [torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s)) for s in seeds]
    return torch.cat(noise).to(model.device, model.precise_dtype)


def sample(
    model: DiffusionModel,
    lanes: LaneBatch,
    bank: LoraBank,
    *,
    max_lanes: int | None = None,
    graph_budget_bytes: int | None = None,
    keep_maps: bool = False,
) -> tuple[Float[Tensor, "row channel height width"], Trace]:
    """Return the final latents of every row of ``lanes``, and what happened.

    Args:
        model: Base model.
        lanes: The batch.
        bank: The UNet's LoRA bank; attached here, and removed again whatever happens.
        max_lanes: Most lanes in one UNet call; None for no limit. Changes no result.
        graph_budget_bytes: Memory that graphs may take at once; None for no limit. Changes no
            result, only whether the gradient is joint or in two passes.
        keep_maps: Keep every step's maps and masks in the trace.
    """
    kind, method = lanes.kind, lanes.method
    config = kind.sampler
    solver = make_solver(model.scheduler_config, config, model.device)
    seeds = [prepared.row.seed for prepared in lanes.rows]
    noise = initial_noise(model, seeds, kind.height_px, kind.width_px)
    guided = method.guided and kind.num_variants > 2 and config.guide_until_step > 0
    trace = Trace(keep_maps=keep_maps)
    with ExitStack() as stack:
        stack.enter_context(bank.attached())
        capture = None
        if guided or method.masked:
            layers = model.map_layers(config.map_size)
            capture = stack.enter_context(capturing(model.unet, layers, model.precise_dtype))
        passes = LanePasses(model, bank, lanes, capture, max_lanes)
        if guided and graph_budget_bytes is not None:
            first = PassInputs(noise, solver.timesteps[0], lanes.weights_at(0))
            per_lane = passes.graph_bytes_per_lane(first)
            passes.max_graph_lanes = max(1, graph_budget_bytes // per_lane)
        latents = _denoise(passes, solver, noise * solver.init_noise_sigma, trace, guided=guided)
    trace.evaluations = passes.evaluations
    return latents, trace


def _denoise(
    passes: LanePasses,
    solver: Solver,
    latents: Float[Tensor, "row channel height width"],
    trace: Trace,
    *,
    guided: bool,
) -> Float[Tensor, "row channel height width"]:
    lanes, config = passes.lanes, passes.lanes.kind.sampler
    for step, t in enumerate(solver.timesteps):
        weights = lanes.weights_at(step)
        # How much smaller the model sees the latents than the solver holds them: 1 unless the
        # solver works in sigma space, where both directions of an update need the factor.
        shrink = float(solver.scale_model_input(torch.ones((), dtype=torch.float64), t))
        num_updates = config.num_updates(step) if guided else 0
        result: Pass | None = None
        for update in range(num_updates):
            is_last = update == num_updates - 1
            round_ = update_round(
                passes,
                PassInputs(latents * shrink, t, weights),
                temperature=config.temperature,
                predict=is_last and not config.reforward_after_update,
            )
            trace.losses.append(round_.losses)
            moved = latents - config.step_size / shrink * round_.gradient
            latents = torch.where(round_.usable[:, None, None, None], moved, latents)
            result = round_.result
        if result is None or not result.predictions:
            result = passes.predict(PassInputs(latents * shrink, t, weights))
        masks = _masks(lanes, result, step, trace) if lanes.method.masked else None
        prediction = _guided_prediction(result, masks, config.guidance_scale)
        latents = solver.step(prediction, t, latents).prev_sample
    return latents


def _masks(
    lanes: LaneBatch, result: Pass, step: int, trace: Trace
) -> Float[Tensor, "row variant map_height map_width"] | None:
    """Return this step's masks as images, or None before the first masked step."""
    config = lanes.kind.sampler
    if step < config.mask_from_step or result.maps is None:
        return None
    map_shape = lanes.regions.shape[2:]
    flat = concept_masks(result.maps, lanes.mask_tokens, threshold=config.mask_threshold)
    masks = flat.unflatten(2, map_shape)  # [row, variant, map_height, map_width]
    if config.mask_morphology:
        masks = clean(masks)
    masks = within_regions(masks, lanes.regions, lanes.replaced)
    coverage, overlap = coverage_and_overlap(masks)
    trace.coverage.append(coverage)
    trace.overlap.append(overlap)
    own = own_maps(result.maps, lanes.mask_tokens)[:, 1:]  # [row, concept, position]
    own = own.unflatten(2, map_shape)  # [row, concept, map_height, map_width]
    trace.leakage.append(leakage(own, masks[:, 1:]))
    if trace.keep_maps:
        trace.maps.append(own.float().cpu())
        trace.masks.append(masks.bool().cpu())
    return masks


def _guided_prediction(
    result: Pass,
    masks: Float[Tensor, "row variant map_height map_width"] | None,
    guidance_scale: float,
) -> Float[Tensor, "row channel height width"]:
    """Return the blended prediction after classifier-free guidance."""
    blended = {half: blend(each, masks) for half, each in result.predictions.items()}
    conditional = blended[Half.CONDITIONAL]
    if Half.UNCONDITIONAL not in blended:
        return conditional
    unconditional = blended[Half.UNCONDITIONAL]
    return unconditional + guidance_scale * (conditional - unconditional)
