"""What the rows of one manifest are checked against and completed from, as values."""

from collections.abc import Mapping
from dataclasses import dataclass

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.map_sizes import MapGrid
from manifests.loras.catalog import LoraEntry
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.places.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.rows.text_reader import TextReader


@dataclass(frozen=True, kw_only=True)
class RowModel:
    """A base model as its rows see it.

    Attributes:
        digest: Part of their keys.
        side_px: Width and height of rows that don't say.
        lora_fit: What it asks of their LoRAs.
        sampler: The settings that a row's own change.
        text: How it reads texts; None where that isn't known.
        maps: Sizes of its attention maps; None if they aren't known.
    """

    digest: str
    side_px: int
    lora_fit: LoraFit
    sampler: SamplerConfig
    text: TextReader | None = None
    maps: MapGrid | None = None


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """The rules of one manifest.

    Attributes:
        catalog: LoRAs by name.
        lora_files: Looks at the files of the LoRAs that rows name.
        base_models: By the name that rows give them; the empty name is for rows that give none.
        method: For rows that name none.
        dtype: Part of every key.
        allowed: Where files that rows name may be.
    """

    catalog: Mapping[str, LoraEntry]
    lora_files: LoraFiles
    base_models: Mapping[str, RowModel]
    method: str
    dtype: str
    allowed: AllowedRoots = EVERYWHERE
