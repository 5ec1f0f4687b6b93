"""What comes out of the composer, as frozen values."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from clora_core.recipe.errors import CompositionError, Stage


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """What happened while a row was made.

    Attributes:
        losses: Contrastive loss before each latent update, in order; empty without updates.
        mask_coverage: Share of the map inside each concept's mask, mean over steps.
        mask_overlap: Share of the map inside two or more masks, mean over steps; None
            without masks.
        mask_leakage: Share of each concept's attention that lies outside its mask, mean over
            steps.
        unet_evaluations: How often one sample of this row went through the UNet, counting a pass
            that stops early as one.
        seconds: Wall time of the batch divided by its rows.
        batch_size: Rows in the batch.
        batch_slot: Place of this row in it.
        retried_in_fp32: The first try was not finite.
    """

    losses: tuple[float, ...] = ()
    mask_coverage: tuple[float, ...] = ()
    mask_overlap: float | None = None
    mask_leakage: tuple[float, ...] = ()
    unet_evaluations: int = 0
    seconds: float = 0.0
    batch_size: int = 1
    batch_slot: int = 0
    retried_in_fp32: bool = False


@dataclass(frozen=True, kw_only=True)
class AttentionRecord:
    """A row's maps and masks, step by step, for reports.

    Attributes:
        maps: The maximum over each concept's own tokens.
        masks: Variant 0 is the background.
    """

    maps: Float32[np.ndarray, "step concept map_height map_width"]
    masks: Bool[np.ndarray, "step variant map_height map_width"]


@dataclass(frozen=True, kw_only=True)
class ComposedImage:
    """A finished row: an RGB image and how it came about."""

    image: UInt8[np.ndarray, "height width 3"]
    diagnostics: Diagnostics
    attention: AttentionRecord | None = None


@dataclass(frozen=True, kw_only=True)
class RowFailure:
    """A row that could not be made: the stage, the error's class and its sentence."""

    stage: Stage
    error: str
    message: str

    @classmethod
    def of(cls, error: CompositionError) -> "RowFailure":
        """Return the failure that ``error`` tells of."""
        return cls(stage=error.stage, error=type(error).__name__, message=str(error))
