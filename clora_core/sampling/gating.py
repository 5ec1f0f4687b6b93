"""The masks of a gated batch, from step to step."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from clora_core.lora.gate import level_size
from clora_core.recipe.methods import GateRecipe
from clora_core.sampling.claims import claims, shares
from clora_core.sampling.lanes import LaneBatch
from clora_core.sampling.masks import own_maps
from clora_core.sampling.passes import Pass
from clora_core.sampling.trace import Trace


@dataclass
class Gating:
    """Holds every row's masks and makes them anew from a pass.

    Attributes:
        lanes: The batch.
        recipe: Its rules.
        masks: Each variant's share of every position of the latents; they add up to 1.
    """

    lanes: LaneBatch
    recipe: GateRecipe
    masks: Float[Tensor, "row variant height width"]

    @classmethod
    def start(cls, lanes: LaneBatch, recipe: GateRecipe) -> "Gating":
        """Return the gate before anything is known: what the rules say, within the regions."""
        regions = lanes.regions[:, 1:]
        claimed = torch.full_like(regions, float(recipe.first == "shared"))
        replaced = lanes.replaced[:, 1:]
        if not recipe.needs_maps:
            replaced = torch.ones_like(replaced)
        return cls(lanes, recipe, shares(claimed, regions, replaced))

    @property
    def reads_first_maps(self) -> bool:
        """Whether the masks of step 0 come from maps at its latents."""
        return self.follows_maps and self.recipe.first == "maps"

    @property
    def follows_maps(self) -> bool:
        """Whether the masks are made anew from maps while the image is sampled."""
        return self.recipe.follows_maps and not self.lanes.kind.is_placed

    def follows(self, step: int) -> bool:
        """Return whether the masks are made anew from the maps of ``step``, for the next one."""
        until = self.recipe.until_step
        return self.follows_maps and (until is None or step + 1 < until)

    def observe(self, result: Pass) -> None:
        """Make the masks anew from a pass's maps."""
        maps = self._read_in(result)
        claimed = claims(
            maps,
            self.lanes.mask_tokens[:, 1:],
            result.features,
            self.recipe,
            threshold=self.lanes.kind.sampler.mask_threshold,
            map_shape=self._map_size(maps),
        )
        self.claim(claimed)

    def claim(self, claimed: Float[Tensor, "row concept map_height map_width"]) -> None:
        """Set the masks from what each concept claims."""
        regions = self.lanes.regions[:, 1:]
        enlarged = functional.interpolate(claimed, size=regions.shape[2:], mode="nearest")
        self.masks = shares(enlarged.to(regions.dtype), regions, self.lanes.replaced[:, 1:])

    def record(self, result: Pass, trace: Trace) -> None:
        """Note this step's masks and each concept's maps, where there are maps."""
        if result.maps is None or self.recipe.base_steps:
            return
        maps = self._read_in(result)
        size = self._map_size(maps)
        masks = functional.adaptive_avg_pool2d(self.masks, size)
        held = masks.round() if self.recipe.kind == "soft" else masks.ceil()
        own = own_maps(maps, self.lanes.mask_tokens[:, 1:]).unflatten(2, size)
        trace.record(own, held)

    def _map_size(self, maps: Float[Tensor, "row concept position token"]) -> tuple[int, int]:
        height, width = self.masks.shape[2:]
        return level_size(height, width, maps.shape[2])

    def _read_in(self, result: Pass) -> Float[Tensor, "row concept position token"]:
        """Return the maps of the text that each concept's words are read in."""
        if result.maps is None:
            raise RuntimeError("a gate that follows the maps without captured maps")
        if self.recipe.source == "own":
            return result.maps[:, 1:]
        return result.maps[:, :1].expand(-1, result.maps.shape[1] - 1, -1, -1)
