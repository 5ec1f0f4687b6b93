"""What a row costs, before it is made: how often one sample goes through the UNet."""

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.methods import METHODS, Mix


def unet_evaluations(method: str, num_concepts: int, config: SamplerConfig) -> int:
    """Return the UNet passes of one row, counting one sample through the UNet as one.

    A pass that stops behind the last map layer counts as one too. The two-pass gradient, taken
    when memory is short, comes on top: one more conditional pass per variant and update.
    """
    num_variants = len(METHODS[method].variants(Mix(("concept",) * num_concepts, config)))
    halves = 1 if config.guidance_scale == 1 else 2
    evaluations = num_variants * halves * config.num_steps
    if METHODS[method].guided and num_concepts > 1:
        updates = [config.num_updates(step) for step in range(config.num_steps)]
        # The last round of a step is part of its prediction, unless that is made anew afterwards.
        shared = 0 if config.reforward_after_update else sum(count > 0 for count in updates)
        map_halves = halves if config.attention_half == "both" else 1
        evaluations += num_variants * map_halves * (sum(updates) - shared)
    return evaluations
