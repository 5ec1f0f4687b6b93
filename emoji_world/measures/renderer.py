"""Renders rows with the product's own Composer and keeps the pictures."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from clora_core.composer import Composer
from clora_core.diffusion.model import load_base_model
from clora_core.lora.cache import LoraCache
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Lora, Row
from clora_core.results import ComposedImage
from emoji_world import base_model_dir, lora_catalog, plain_lora_catalog
from emoji_world.scenes import SIDE_PX

_BATCH_ROWS = 16


class Renderer:
    """The committed base model and catalog behind one method."""

    def __init__(
        self,
        device: str,
        catalog: Path | None = None,
        base: Path | None = None,
        **settings: Any,
    ) -> None:
        """Load the model and the LoRAs of both catalogs, or other ones where they are named.

        ``settings`` change the preset ``emoji``.
        """
        self._composer = Composer(
            load_base_model(base or base_model_dir(), device=device), LoraCache(2**28)
        )
        catalogs = [catalog] if catalog else [lora_catalog(), plain_lora_catalog()]
        self._uses = {
            entry["name"]: _use(entry, path.parent)
            for path in catalogs
            for entry in yaml.safe_load(path.read_text())["loras"]
        }
        self._sampler = SamplerConfig.resolve({"preset": "emoji", **settings})
        self.seconds: list[float] = []

    def row(
        self,
        prompt: str,
        loras: Sequence[str],
        seed: int,
        method: str,
        *,
        width: int = SIDE_PX,
        height: int = SIDE_PX,
    ) -> Row:
        """Return a row, of the world's own picture size if none is given."""
        return Row(
            prompt=prompt,
            loras=tuple(self._uses[name] for name in loras),
            seed=seed,
            method=method,
            sampler=self._sampler,
            width=width,
            height=height,
        )

    def render(self, rows: Sequence[Row]) -> list[NDArray[np.uint8]]:
        """Return one picture a row; a row that fails ends the measurement."""
        images: list[NDArray[np.uint8]] = []
        for start in range(0, len(rows), _BATCH_ROWS):
            for made in self._composer.compose(rows[start : start + _BATCH_ROWS]):
                if not isinstance(made, ComposedImage):
                    raise RuntimeError(  # noqa: TRY004 - a failed row, not a wrong type
                        f"{made.stage}: {made.error}: {made.message}"
                    )
                images.append(made.image)
                self.seconds.append(made.diagnostics.seconds)
        return images


def _use(entry: dict[str, Any], folder: Path) -> Lora:
    path = folder / entry["uri"]
    return Lora(
        name=entry["name"],
        uri=str(path),
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        kind=entry["kind"],
        subject=entry.get("subject"),
        trigger=entry.get("trigger"),
    )
