"""One fusion on the machine that holds the base model: LoRA files in, the adapter's file out."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clora_core.recipe.config import ENGINE_VERSION, FUSION_VERSION
from clora_core.recipe.errors import FusionError, LoraFileError
from clora_core.recipe.fusion import Fusion
from clora_core.recipe.row import Lora, Row
from clora_core.results import RowFailure
from manifests.loras.local_lora import local_lora
from pipelines.planning.references import ReferenceSettings, reference_row
from pipelines.stages.lora_identity import LoraIdentity
from pipelines.storage.storage import Storage
from pipelines.units.committed_image import image_name

if TYPE_CHECKING:
    from clora_core.composer import Composer
    from clora_core.diffusion.model import DiffusionModel

ReadReference = Callable[[str], bytes | None]
"""Returns the PNG of the reference row with this key, None if nobody has made it."""


@dataclass(frozen=True, kw_only=True)
class FusedFile:
    """A fused adapter, ready to be committed.

    Attributes:
        content: The safetensors file.
        unet_evaluations: Samples through the UNet that it took; one that goes backward too is one.
        num_drawn: Images that were drawn for it, because no reference had been made.
    """

    content: bytes
    unet_evaluations: int
    num_drawn: int


@dataclass(frozen=True, kw_only=True)
class References:
    """Reads images of the reference phase; can be sent to any machine."""

    storage: Storage | None

    def __call__(self, key: str) -> bytes | None:
        """Return the PNG of the reference row with this key, None if there is none."""
        if self.storage is None:
            return None
        try:
            return self.storage.read(image_name(key))
        except FileNotFoundError:
            return None


class FusionWork:
    """Fuses with one base model.

    Args:
        model: The base model.
        composer: The same model's composer, for images that have to be drawn.
        dtype: Numbers that it computes with.
        identity: Knows whether a LoRA file is the planned one.
        versions_json: Of the software, for the adapter's metadata.
    """

    def __init__(
        self,
        model: "DiffusionModel",
        composer: "Composer",
        *,
        dtype: str,
        identity: LoraIdentity,
        versions_json: str,
    ) -> None:
        self._model = model
        self._composer = composer
        self._dtype = dtype
        self._identity = identity
        self._versions_json = versions_json

    def fuse(self, fusion: Fusion, read_reference: ReadReference) -> FusedFile:
        """Return the file of ``fusion``.

        Raises:
            CompositionError: The LoRAs cannot be fused so; the message says why.
            LocationError, StoreAwayError: A LoRA file cannot be read.
        """
        from clora_core.fuse.adapter_file import encode_adapter
        from clora_core.fuse.ingredient import Ingredient
        from clora_core.fuse.recipes import fuse
        from clora_core.lora.load import lora_targets, read_lora

        start = time.perf_counter()
        loras = [self._checked(lora) for lora in fusion.loras]
        targets = lora_targets(self._model.components)
        syntax = fusion.sampler.prompt_syntax
        ingredients = [Ingredient(lora, read_lora(lora.uri, targets), syntax) for lora in loras]
        drawn: list[int] = []

        def draw(index: int) -> list[np.ndarray]:
            rows = self._alone(fusion, loras[index])
            found = {row.key: _pixels(read_reference(row.key)) for row in rows}
            images, evaluations = self._drawn([row for row in rows if found[row.key] is None])
            drawn.extend(evaluations)
            return [images[row.key] if (image := found[row.key]) is None else image for row in rows]

        adapter = fuse(fusion.method, self._model, ingredients, fusion.sampler, draw)
        facts: dict[str, Any] = {
            "key": fusion.key,
            "method": fusion.method,
            "settings": fusion.settings(),
            "base_model_digest": fusion.base_model_digest,
            "dtype": self._dtype,
            "loras": [
                {
                    "name": lora.name,
                    "digest": lora.digest,
                    "weight": lora.weight,
                    "subject": lora.subject,
                    "trigger": lora.trigger,
                }
                for lora in fusion.loras
            ],
            "engine_version": ENGINE_VERSION,
            "fusion_version": FUSION_VERSION,
            "versions": self._versions_json,
            "seconds": round(time.perf_counter() - start, 3),
        }
        content = encode_adapter(adapter, facts, title=fusion.adapter_name)
        return FusedFile(
            content=content,
            unet_evaluations=adapter.unet_evaluations + sum(drawn),
            num_drawn=len(drawn),
        )

    def _checked(self, lora: Lora) -> Lora:
        local = replace(lora, uri=str(local_lora(lora.uri)), region=None)
        problem = self._identity.problem(local)
        if problem is not None:
            raise LoraFileError(problem)
        return local

    def _alone(self, fusion: Fusion, lora: Lora) -> list[Row]:
        """Return the rows of the LoRA's images, as the reference phase makes them."""
        settings = ReferenceSettings(
            num_references=fusion.sampler.ziplora_images,
            sampler=fusion.sampler,
            side_px=self._model.default_size_px,
            dtype=self._dtype,
        )
        alone = replace(lora, weight=1.0)
        return [
            reference_row(alone, seed, fusion.base_model_digest, settings)
            for seed in range(settings.num_references)
        ]

    def _drawn(self, rows: Sequence[Row]) -> tuple[dict[str, np.ndarray], list[int]]:
        images: dict[str, np.ndarray] = {}
        evaluations: list[int] = []
        for row, result in zip(rows, self._composer.compose(rows), strict=True):
            if isinstance(result, RowFailure):
                raise FusionError(
                    f"an image that {row.loras[0].name} makes alone is needed, and it failed: "
                    f"{result.message}"
                )
            images[row.key] = result.image
            evaluations.append(result.diagnostics.unet_evaluations)
        return images, evaluations


def _pixels(png: bytes | None) -> np.ndarray | None:
    """Return an image's pixels; None if there is none, or it came to harm."""
    if png is None:
        return None
    try:
        with Image.open(io.BytesIO(png)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError):
        return None
