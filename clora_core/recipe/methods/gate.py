"""The rules of a gated method: where its masks come from and what they gate.

A gated method runs all variants of a row in one lane. At each position of the image the lane takes
the variants' LoRA weights and texts in the proportion of their masks, so one pass composes what
``clora`` composes from a pass for every variant.
"""

from dataclasses import dataclass
from typing import Literal

from clora_core.recipe.config import SamplerConfig

MaskSource = Literal["own", "base", "self", "regions"]
MaskKind = Literal["threshold", "argmax", "soft", "balanced"]
FirstMask = Literal["maps", "base", "shared"]


@dataclass(frozen=True, kw_only=True)
class GateRecipe:
    """How a gated method makes and uses its masks; the settings' docstring says what each does.

    Attributes:
        source: Maps the masks are made from; ``regions`` uses none, only the row's regions.
        kind: How masks are made from maps.
        smoothing: Standard deviation of the maps' blur, in map positions.
        fill_holes: Give a concept what its mask encloses.
        first: Masks of step 0, where no steps of the base model make them.
        until_step: Masks are made anew before steps [1, until_step); None for all.
        base_steps: Steps of the base model that make the masks; 0 makes them on the way.
        only_attention: Gate the attention and feed-forward layers of the transformer blocks alone
            and leave LoRAs on other layers ungated, with the variants' ``context_shares``.
        negative_bias: Lowers a variant's attention to other concepts' words.
        positive_bias: Raises a variant's attention to its own concept's words.
    """

    source: MaskSource
    kind: MaskKind = "threshold"
    smoothing: float = 0.0
    fill_holes: bool = False
    first: FirstMask = "maps"
    until_step: int | None = None
    base_steps: int = 0
    only_attention: bool = False
    negative_bias: float = 0.0
    positive_bias: float = 0.0

    @property
    def follows_maps(self) -> bool:
        """Whether the masks are made anew while the image is sampled."""
        return self.needs_maps and not self.base_steps

    @property
    def needs_maps(self) -> bool:
        """Whether the masks are made from attention maps at all."""
        return self.source != "regions"


def gate_of(config: SamplerConfig) -> GateRecipe:
    """Return the rules that the settings describe, for methods that have none of their own."""
    return GateRecipe(
        source=config.gate_mask_source,
        kind=config.gate_mask_kind,
        smoothing=config.gate_mask_smoothing,
        fill_holes=config.gate_mask_fill_holes,
        first=config.gate_first_mask,
        until_step=config.gate_masks_until_step,
        base_steps=min(config.gate_base_steps, config.num_steps),
    )
