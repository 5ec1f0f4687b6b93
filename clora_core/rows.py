"""What goes into the composer and what comes out, as frozen values.

A row's image depends on these fields and the base model alone; the batch a row travels in changes
nothing beyond rounding. Knows neither torch nor files: a LoRA is named by path and digest.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from clora_core.config import SamplerConfig
from clora_core.errors import CompositionError, Stage


@dataclass(frozen=True, kw_only=True)
class Region:
    """A part of the image; exactly one of ``box`` and ``mask_path`` is given.

    Attributes:
        box: Left, top, right, bottom as shares of width and height, 0 to 1.
        mask_path: A local greyscale image, stretched over the whole picture; light is inside.
        mode: ``restrict`` keeps the attention mask inside the region; ``replace`` takes the region
            as the mask.
    """

    box: tuple[float, float, float, float] | None = None
    mask_path: str | None = None
    mode: Literal["restrict", "replace"] = "restrict"


@dataclass(frozen=True, kw_only=True)
class LoraUse:
    """One LoRA in one row.

    Attributes:
        name: The catalog's name, for messages only.
        path: Local safetensors file.
        digest: Identity of the LoRA (hex): its tensors, and a strength that they do not hold.
        kind: ``"concept"`` has a subject in the prompt; ``"style"`` acts on the whole image.
        weight: Factor of the LoRA's delta. 1 is as trained.
        subject: The noun of the prompt that a concept stands for.
        trigger: Words put before the subject, or None.
        region: Where in the image the concept may act; None for wherever its attention is.
    """

    name: str
    path: str
    digest: str
    kind: Literal["concept", "style"]
    weight: float = 1.0
    subject: str | None = None
    trigger: str | None = None
    region: Region | None = None


@dataclass(frozen=True, kw_only=True)
class ComposeRow:
    """One image to make. Sizes are in pixels."""

    prompt: str
    loras: tuple[LoraUse, ...]
    seed: int
    method: str
    sampler: SamplerConfig
    negative_prompt: str = ""
    width: int = 512
    height: int = 512

    @property
    def concepts(self) -> tuple[LoraUse, ...]:
        """The LoRAs that stand for a subject, in the row's order."""
        return tuple(lora for lora in self.loras if lora.kind == "concept")

    @property
    def styles(self) -> tuple[LoraUse, ...]:
        """The LoRAs that act on the whole image, in the row's order."""
        return tuple(lora for lora in self.loras if lora.kind == "style")


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
