"""What happened while a batch was sampled, row by row."""

from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor

from clora_core.sampling.masks import coverage_and_overlap, leakage


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

    def record(
        self,
        own: Float[Tensor, "row concept height width"],
        masks: Float[Tensor, "row variant height width"],
    ) -> None:
        """Take a masked step's masks (0 or 1) and each concept's own maps, of one size."""
        coverage, overlap = coverage_and_overlap(masks)
        self.coverage.append(coverage)
        self.overlap.append(overlap)
        self.leakage.append(leakage(own, masks[:, 1:]))
        if self.keep_maps:
            self.maps.append(own.float().cpu())
            self.masks.append(masks.bool().cpu())
