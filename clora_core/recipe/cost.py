"""What a row costs, before it is made: how often one sample goes through the UNet."""

from collections.abc import Sequence

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods import METHODS, Mix
from clora_core.recipe.row import LoraKind


def unet_evaluations(
    method: str, num_concepts: int, config: SamplerConfig, *, is_placed: bool = False
) -> int:
    """Return the UNet passes of one row, counting one sample through the UNet as one.

    A pass that stops behind the last map layer counts as one too. The two-pass gradient, taken
    when memory is short, is on top: one more conditional pass per lane and update. A first phase
    that rows share counts for each of them.

    Args:
        method: The row's.
        num_concepts: Its concept LoRAs.
        config: Its settings.
        is_placed: Every concept has a region in mode ``replace``, so no masks are looked for.
    """
    kind = METHODS[method]
    num_variants = _num_variants(method, num_concepts, config)
    gate = kind.gate(num_variants, config)
    num_lanes = num_variants if gate is None else 1
    halves = 1 if config.guidance_scale == 1 else 2
    map_halves = halves if config.attention_half == "both" else 1
    evaluations = num_lanes * halves * config.num_steps
    updates = [kind.num_updates(step, num_concepts, config) for step in range(config.num_steps)]
    # The last round of a step is part of its prediction, unless that is made anew afterwards.
    shared = 0 if config.reforward_after_update else sum(count > 0 for count in updates)
    evaluations += num_lanes * map_halves * (sum(updates) - shared)
    if gate is None or is_placed:
        return evaluations
    if gate.follows_maps and gate.first == "maps":
        evaluations += map_halves
    return evaluations + first_phase_evaluations(method, num_concepts, config)


def first_phase_evaluations(method: str, num_concepts: int, config: SamplerConfig) -> int:
    """Return how many of a row's passes are steps of the base model that make its masks.

    Rows that differ in their LoRAs alone share them.
    """
    kind = METHODS[method]
    gate = kind.gate(_num_variants(method, num_concepts, config), config)
    if gate is None or not gate.base_steps:
        return 0
    halves = 1 if config.guidance_scale == 1 else 2
    last = halves if config.attention_half == "both" else 1
    return halves * (gate.base_steps - 1) + last


def fusion_evaluations(method: str, num_concepts: int, config: SamplerConfig) -> int:
    """Return the samples through the UNet that fusing one adapter takes, images left out.

    A sample with a gradient counts as one, as in ``unet_evaluations``. ``mix-of-show`` needs none
    where the LoRAs change nothing beyond the text encoder, keys and values.

    Args:
        method: Whose recipe fuses; 0 for one that fuses nothing.
        num_concepts: LoRAs that are fused.
        config: Settings.
    """
    match method:
        case "mix-of-show":
            return num_concepts * config.mix_of_show_steps
        case "ziplora":
            return 2 * num_concepts * config.ziplora_steps
        case _:
            return 0


def _num_variants(method: str, num_concepts: int, config: SamplerConfig) -> int:
    kind = METHODS[method]
    concepts: Sequence[LoraKind] = ("concept",) * num_concepts
    styles: Sequence[LoraKind] = ("style",) * (kind.num_styles or 0)
    return len(kind.variants(Mix((*concepts, *styles), config)))
