"""The denoising loop: every method, every row of a batch, one loop.

Order of one step (arXiv 2403.19776, section 3, as published): predictions and maps at the current
latents; latent updates along the loss gradient; masks and the blend from the maps and predictions
of the last round, which precede its update; guidance; one solver step on the updated latents. A
gated batch needs its masks before the pass instead, so they come from the maps of the step before.

A row's noise comes from its own generator on the CPU, and nothing is reduced over rows, so that a
row's image does not depend on the batch it travels in beyond rounding.
"""

from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.attention import MapCapture, MapLayers, capturing
from clora_core.diffusion.contexts import TextContexts, gated_attention
from clora_core.diffusion.features import capturing_features, similarity_layer
from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.noise import initial_noise
from clora_core.diffusion.schedulers import Solver, make_solver
from clora_core.lora.bank import LoraBank
from clora_core.sampling.calls import PassInputs
from clora_core.sampling.first_phase import first_phase
from clora_core.sampling.gating import Gating
from clora_core.sampling.guidance import guided_prediction, update_round
from clora_core.sampling.lanes import Half, LaneBatch
from clora_core.sampling.masks import clean, concept_masks, own_maps, within_regions
from clora_core.sampling.passes import LanePasses, Pass
from clora_core.sampling.trace import Trace


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
    kind = lanes.kind
    lanes = lanes.with_layers_of(bank)
    solver = make_solver(model.scheduler_config, kind.sampler, model.device)
    seeds = [prepared.row.seed for prepared in lanes.rows]
    noise = initial_noise(model, seeds, kind.height_px, kind.width_px)
    trace = Trace(keep_maps=keep_maps)
    gating = None if lanes.gate is None else Gating.start(lanes, lanes.gate)
    phase_evaluations = 0
    if gating is not None and gating.recipe.base_steps and not kind.is_placed:
        phase = first_phase(model, lanes.rows, gating.recipe, max_lanes=max_lanes)
        gating.claim(phase.claimed)
        phase_evaluations = phase.evaluations
    follows = gating is not None and gating.follows_maps
    # Before the bank is attached: measuring the model's layers is a pass without LoRA weights.
    layers = model.map_layers(kind.sampler.map_size) if _reads_maps(lanes, follows) else None
    with ExitStack() as stack:
        stack.enter_context(bank.attached())
        passes = LanePasses(model, bank, lanes, None, max_lanes)
        _attach_readers(passes, stack, layers, gating)
        if lanes.is_guided and graph_budget_bytes is not None:
            masks = None if gating is None else gating.masks
            first = PassInputs(noise, solver.timesteps[0], lanes.weights_at(0), masks)
            per_lane = passes.graph_bytes_per_lane(first)
            passes.max_graph_lanes = max(1, graph_budget_bytes // per_lane)
        latents = _denoise(passes, solver, noise * solver.init_noise_sigma, trace, gating)
    trace.evaluations = passes.evaluations + phase_evaluations
    return latents, trace


def _attach_readers(
    passes: LanePasses, stack: ExitStack, layers: MapLayers | None, gating: Gating | None
) -> None:
    """Attach what the passes read to the UNet until ``stack`` ends."""
    model = passes.model
    if gating is None:
        if layers is not None:
            passes.capture = stack.enter_context(capturing(model.unet, layers, model.precise_dtype))
        return
    passes.contexts = _contexts(model, passes.lanes, passes.bank)
    if layers is not None:
        passes.capture = MapCapture(len(layers.names), model.precise_dtype)
        if gating.follows_maps and gating.recipe.source == "self":
            reading = capturing_features(model.unet, similarity_layer(layers))
            passes.features = stack.enter_context(reading)
    names = () if layers is None else layers.names
    stack.enter_context(gated_attention(model.unet, passes.contexts, passes.capture, names))


def _reads_maps(lanes: LaneBatch, follows: bool) -> bool:
    return lanes.is_guided or lanes.method.masked or follows


def _contexts(model: DiffusionModel, lanes: LaneBatch, bank: LoraBank) -> TextContexts:
    """Return the keys and values of every gated row's texts, in the order of the halves."""
    halves = list(lanes.conditions)
    text = torch.cat([lanes.conditions[half].text for half in halves])
    bank.use(lanes.context_weights().repeat(len(halves), 1))
    bias = None
    if lanes.word_bias is not None:
        # The words are those of the prompt; the negative prompt has others in their places.
        nothing = torch.zeros_like(lanes.word_bias)
        by_half = [lanes.word_bias if half is Half.CONDITIONAL else nothing for half in halves]
        bias = torch.cat(by_half)
    return TextContexts.project(model.unet, text, lanes.kind.num_variants, bias)


def _denoise(
    passes: LanePasses,
    solver: Solver,
    latents: Float[Tensor, "row channel height width"],
    trace: Trace,
    gating: Gating | None,
) -> Float[Tensor, "row channel height width"]:
    lanes, config = passes.lanes, passes.lanes.kind.sampler
    for step, t in enumerate(solver.timesteps):
        weights = lanes.weights_at(step)
        # How much smaller the model sees the latents than the solver holds them: 1 unless the
        # solver works in sigma space, where both directions of an update need the factor.
        shrink = float(solver.scale_model_input(torch.ones((), dtype=torch.float64), t))
        if gating is not None and step == 0 and gating.reads_first_maps:
            gating.observe(passes.maps_only(PassInputs(latents * shrink, t, weights, gating.masks)))
        masks = None if gating is None else gating.masks
        num_updates = lanes.num_updates(step)
        result: Pass | None = None
        for update in range(num_updates):
            is_last = update == num_updates - 1
            round_ = update_round(
                passes,
                PassInputs(latents * shrink, t, weights, masks),
                temperature=config.temperature,
                predict=is_last and not config.reforward_after_update,
            )
            trace.losses.append(round_.losses)
            moved = latents - config.step_size / shrink * round_.gradient
            latents = torch.where(round_.usable[:, None, None, None], moved, latents)
            result = round_.result
        if result is None or not result.predictions:
            result = passes.predict(PassInputs(latents * shrink, t, weights, masks))
        blended_by = lanes.variant_weights
        if lanes.method.masked:
            blended_by = _masks(lanes, result, step, trace)
        if gating is not None:
            gating.record(result, trace)
            if gating.follows(step):
                gating.observe(result)
        prediction = guided_prediction(result, blended_by, config.guidance_scale)
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
    own = own_maps(result.maps, lanes.mask_tokens)[:, 1:]  # [row, concept, position]
    own = own.unflatten(2, map_shape)  # [row, concept, map_height, map_width]
    trace.record(own, masks)
    return masks
