"""One latent update: the contrastive loss of the maps, and the gradient it sends to the latents.

ArXiv 2403.19776, equation 5: z <- z - alpha * dL/dz. Losses are per row and only ever summed, so no
row's update depends on its neighbours. Two ways to the same gradient: one joint graph over all
lanes when they fit, else two passes (maps first, then one graph per chunk of lanes).
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clora_core.sampling.calls import PassInputs
from clora_core.sampling.lanes import Half, LaneBatch
from clora_core.sampling.loss import contrastive_loss, has_constant_map
from clora_core.sampling.masks import blend
from clora_core.sampling.passes import LanePasses, Pass

HALF_PRECISION_LOSS_SCALE = 2.0**12
"""Float16 cannot hold the gradients inside the UNet (1e-6 and less) unless the loss is enlarged."""


@dataclass(frozen=True)
class Round:
    """One round of an update step.

    Attributes:
        result: Predictions (if asked for) and maps at the latents before the update.
        losses: Contrastive loss of each row there.
        gradient: dL/dz of each row.
        usable: Rows whose gradient means something: finite, and no map without contrast.
    """

    result: Pass
    losses: Float[Tensor, " row"]
    gradient: Float[Tensor, "row channel height width"]
    usable: Bool[Tensor, " row"]


def update_round(
    passes: LanePasses, inputs: PassInputs, *, temperature: float, predict: bool
) -> Round:
    """Return the loss and its gradient at the latents of ``inputs``.

    Args:
        passes: The batch's UNet passes.
        inputs: Latents as the model sees them, timestep and LoRA weights.
        temperature: Temperature of the loss.
        predict: Give predictions too: the last round of a step.
    """
    scale = HALF_PRECISION_LOSS_SCALE if passes.model.dtype == torch.float16 else 1.0
    if passes.fits_in_one_call:
        leaf = inputs.latents.detach().requires_grad_()
        result = passes.with_graph(replace(inputs, latents=leaf), predict=predict)
        with torch.enable_grad():
            losses, constant = batch_losses(passes.lanes, _maps_of(result), temperature)
            [gradient] = torch.autograd.grad(losses.sum() * scale, leaf)
    else:
        result = passes.predict(inputs) if predict else passes.maps_only(inputs)
        maps = _maps_of(result).detach().requires_grad_()
        with torch.enable_grad():
            losses, constant = batch_losses(passes.lanes, maps, temperature)
            [map_gradients] = torch.autograd.grad(losses.sum() * scale, maps)
        gradient = passes.map_gradient(inputs, map_gradients)
    gradient = gradient.detach() / scale
    finite = gradient.isfinite().flatten(start_dim=1).all(dim=1)
    result = replace(result, maps=_maps_of(result).detach())
    return Round(result, losses.detach(), gradient, finite & ~constant)


def batch_losses(
    lanes: LaneBatch, maps: Float[Tensor, "row variant position token"], temperature: float
) -> tuple[Float[Tensor, " row"], Bool[Tensor, " row"]]:
    """Return every row's contrastive loss, and which rows have a map without contrast."""
    rows = torch.arange(len(maps), device=maps.device)[:, None]  # [row, 1]
    compared = maps[rows, lanes.map_variants, :, lanes.map_tokens]  # [row, map, position]
    losses = contrastive_loss(compared, lanes.map_concepts, temperature=temperature)
    return losses, has_constant_map(compared.detach(), lanes.map_concepts)


def guided_prediction(
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


def _maps_of(result: Pass) -> Float[Tensor, "row variant position token"]:
    if result.maps is None:
        raise RuntimeError("an update round without captured maps")
    return result.maps
