"""Masks from the base model alone: some steps without any LoRA, before the sampling proper.

What these steps see is the prompt without triggers, the negative prompt, the seed, the words that
subjects are found at and the embeddings that texts may name, so rows that differ in the layers of
their LoRAs alone share them. They are FreeFuse's first phase (arXiv 2510.23515).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from clora_core.diffusion.attention import MapLayers, capturing
from clora_core.diffusion.features import capturing_features, similarity_layer
from clora_core.diffusion.model import DiffusionModel
from clora_core.diffusion.noise import initial_noise
from clora_core.diffusion.schedulers import make_solver
from clora_core.lora.bank import LoraBank
from clora_core.lora.gate import level_size
from clora_core.recipe.methods import GateRecipe
from clora_core.sampling.calls import PassInputs
from clora_core.sampling.claims import claims
from clora_core.sampling.guidance import guided_prediction
from clora_core.sampling.lanes import lane_batch, padded
from clora_core.sampling.passes import LanePasses, Pass
from clora_core.sampling.row_lanes import RowLanes, row_lanes


@dataclass(frozen=True)
class FirstPhase:
    """What the base model's steps gave.

    Attributes:
        claimed: Each concept's claim on each position of the maps.
        evaluations: UNet passes behind one row's claims, whether or not it shared them.
    """

    claimed: Float[Tensor, "row concept map_height map_width"]
    evaluations: int


def first_phase(
    model: DiffusionModel,
    rows: Sequence[RowLanes],
    recipe: GateRecipe,
    *,
    max_lanes: int | None,
) -> FirstPhase:
    """Return the claims of ``rows``, of one kind, whose masks the base model makes."""
    plain = [
        row_lanes(
            model, replace(lanes.row, method="base", text_chunks=lanes.num_chunks), lanes.words
        )
        for lanes in rows
    ]
    seen = [_seen(lanes) for lanes in plain]
    distinct = list(dict.fromkeys(seen))
    first_of = [seen.index(each) for each in distinct]
    passes, last = _base_steps(model, [plain[index] for index in first_of], recipe, max_lanes)
    if last.maps is None:
        raise RuntimeError("a first phase without captured maps")
    words = [padded([p.subject for p in plain[i].positions[0]], -1, model.device) for i in first_of]
    width = max(table.shape[1] for table in words)
    tokens = torch.stack(
        [torch.nn.functional.pad(table, (0, width - table.shape[1]), value=-1) for table in words]
    )
    kind = rows[0].kind
    latent_shape = model.latent_shape(kind.width_px, kind.height_px)
    claimed = claims(
        last.maps.expand(-1, tokens.shape[1], -1, -1),
        tokens,
        last.features,
        recipe,
        threshold=kind.sampler.mask_threshold,
        map_shape=level_size(*latent_shape, last.maps.shape[2]),
    )
    places = torch.tensor([distinct.index(each) for each in seen], device=model.device)
    return FirstPhase(claimed[places], passes.evaluations)


def _seen(lanes: RowLanes) -> tuple[object, ...]:
    """Return all that the base model's steps depend on, within one kind of rows."""
    row, words = lanes.row, tuple(found.subject for found in lanes.positions[0])
    embedded = (lanes.words.words, lanes.words.source)
    return (lanes.prompts[0].read, row.negative_prompt, row.seed, words, embedded)


def _base_steps(
    model: DiffusionModel, rows: Sequence[RowLanes], recipe: GateRecipe, max_lanes: int | None
) -> tuple[LanePasses, Pass]:
    """Take all but the last step whole; the last ends at its maps, which are wanted."""
    kind = rows[0].kind
    config = kind.sampler
    text_banks = [LoraBank(tower.encoder, [], tower.name) for tower in model.towers]
    lanes = lane_batch(model, rows, (), text_banks)
    solver = make_solver(model.scheduler_config, config, model.device)
    noise = initial_noise(model, [each.row.seed for each in rows], kind.height_px, kind.width_px)
    latents = noise * solver.init_noise_sigma
    bank = LoraBank(model.unet, [], "unet")
    layers = model.map_layers(config.map_size)
    with ExitStack() as stack:
        stack.enter_context(bank.attached())
        features = None
        if recipe.source == "self":
            layer = similarity_layer(layers)
            layers = MapLayers((layer,), layers.downsampling)
            features = stack.enter_context(capturing_features(model.unet, layer))
        capture = stack.enter_context(capturing(model.unet, layers, model.precise_dtype))
        passes = LanePasses(model, bank, lanes, capture, max_lanes, features=features)
        for step, t in enumerate(solver.timesteps[: recipe.base_steps]):
            shrink = float(solver.scale_model_input(torch.ones((), dtype=torch.float64), t))
            inputs = PassInputs(latents * shrink, t, lanes.weights_at(step))
            if step == recipe.base_steps - 1:
                return passes, passes.maps_only(inputs)
            prediction = guided_prediction(passes.predict(inputs), None, config.guidance_scale)
            latents = solver.step(prediction, t, latents).prev_sample
    raise ValueError(f"a first phase of {recipe.base_steps} steps")
