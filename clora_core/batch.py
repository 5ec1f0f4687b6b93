"""One batch from prepared rows to finished images: encode, pack, sample, decode, judge."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clora_core.diffusion.model import DiffusionModel
from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors
from clora_core.recipe.errors import NonFiniteImageError
from clora_core.results import AttentionRecord, ComposedImage, Diagnostics, RowFailure
from clora_core.sampling.lanes import lane_batch
from clora_core.sampling.row_lanes import RowLanes
from clora_core.sampling.sampler import Trace, sample

FLATTEST_SPREAD = 2
"""Fewest levels between an image's darkest and brightest value; below it is a blank."""


@dataclass(frozen=True)
class Batch:
    """Rows of one kind, to be sampled together.

    Attributes:
        rows: The rows' variants and prompts.
        factors: Every LoRA of these rows by digest.
        keep_maps: Return the attention maps and masks too.
        retried: The rows were tried in half precision before.
    """

    rows: tuple[RowLanes, ...]
    factors: Mapping[str, LoraFactors]
    keep_maps: bool = False
    retried: bool = False


def run_batch(
    model: DiffusionModel, batch: Batch, *, max_lanes: int | None, graph_budget_bytes: int | None
) -> list[ComposedImage | RowFailure]:
    """Return one result per row, in order; a row whose image is no image is a failure."""
    start = time.perf_counter()
    digests = sorted({lora.digest for lanes in batch.rows for lora in lanes.row.sampled_loras})
    packed = [batch.factors[digest] for digest in digests]
    text_banks = [LoraBank(tower.encoder, packed, tower.name) for tower in model.towers]
    latents, trace = sample(
        model,
        lane_batch(model, batch.rows, digests, text_banks),
        LoraBank(model.unet, packed, "unet"),
        max_lanes=max_lanes,
        graph_budget_bytes=graph_budget_bytes,
        keep_maps=batch.keep_maps,
    )
    images = [decode(model, latents[slot : slot + 1]) for slot in range(len(batch.rows))]
    seconds = (time.perf_counter() - start) / len(batch.rows)
    return [
        _blank(image) or _composed(image, batch, trace, slot, seconds)
        for slot, image in enumerate(images)
    ]


@torch.no_grad()
def decode(
    model: DiffusionModel, latents: Float[Tensor, "1 channel latent_height latent_width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the uint8 RGB image of one row's latents; of no size if anything is not finite."""
    nothing = np.zeros((0, 0, 3), dtype=np.uint8)
    if not bool(latents.isfinite().all()):
        return nothing
    # XL's autoencoder overflows in half precision and says so in its config.
    precise = bool(model.vae.config.get("force_upcast")) and model.dtype == torch.float16
    with model.in_dtype(torch.float32) if precise else nullcontext():
        scaled = latents / model.vae.config["scaling_factor"]
        decoded: Any = model.vae.decode(scaled.to(model.vae.dtype))
    pixels: Float[Tensor, "3 height width"] = decoded.sample[0]
    if not bool(pixels.isfinite().all()):
        return nothing
    levels = ((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.permute(1, 2, 0).cpu().numpy()  # [height, width, 3]


def _blank(image: UInt8[np.ndarray, "height width 3"]) -> RowFailure | None:
    if not image.size:
        why = "the latents or the image are not finite; lower step_size or guidance_scale"
    elif int(image.max()) - int(image.min()) < FLATTEST_SPREAD:
        why = "the image is one flat colour; try another seed or lower guidance_scale"
    else:
        return None
    return RowFailure.of(NonFiniteImageError(why))


def _composed(
    image: UInt8[np.ndarray, "height width 3"],
    batch: Batch,
    trace: Trace,
    slot: int,
    seconds: float,
) -> ComposedImage:
    overlap = _mean([overlap[slot : slot + 1] for overlap in trace.overlap])
    diagnostics = Diagnostics(
        losses=tuple(float(losses[slot]) for losses in trace.losses),
        mask_coverage=_mean([coverage[slot] for coverage in trace.coverage]),
        mask_overlap=overlap[0] if overlap else None,
        mask_leakage=_mean([leakage[slot] for leakage in trace.leakage]),
        unet_evaluations=trace.evaluations,
        seconds=seconds,
        batch_size=len(batch.rows),
        batch_slot=slot,
        retried_in_fp32=batch.retried,
    )
    attention = None
    if trace.maps:
        attention = AttentionRecord(
            maps=torch.stack([maps[slot] for maps in trace.maps]).numpy(),
            masks=torch.stack([masks[slot] for masks in trace.masks]).numpy(),
        )
    return ComposedImage(image=image, diagnostics=diagnostics, attention=attention)


def _mean(steps: Sequence[Float[Tensor, " concept"]]) -> tuple[float, ...]:
    return tuple(torch.stack(list(steps)).mean(dim=0).tolist()) if steps else ()
