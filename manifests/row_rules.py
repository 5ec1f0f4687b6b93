"""What the rows of one manifest are checked against and completed from, as values.

Manifests know no sampler and no model; whoever does says here how settings are resolved, which
LoRAs go together, and what each base model asks of its rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from manifests.allowed_roots import EVERYWHERE, AllowedRoots
from manifests.catalog import LoraEntry
from manifests.lora_files import LoraFiles
from manifests.lora_fit import LoraFit
from manifests.resolved import ResolvedLora

__all__ = ["FindComposition", "ResolveSampler", "RowModel", "RowRules"]

ResolveSampler = Callable[[Mapping[str, object]], Mapping[str, object]]
"""Takes a row's overrides, returns the complete settings; raises ``SettingsError``."""

FindComposition = Callable[[str, str, Sequence[ResolvedLora]], Sequence[tuple[str, str]]]
"""Takes method, prompt and LoRAs; returns (column, sentence) of why they cannot be composed."""


@dataclass(frozen=True, kw_only=True)
class RowModel:
    """A base model as its rows see it.

    Attributes:
        digest: Part of their keys.
        side_px: Width and height of rows that don't say.
        lora_fit: What it asks of their LoRAs.
        resolve_sampler: How a row's sampler overrides become complete settings.
    """

    digest: str
    side_px: int
    lora_fit: LoraFit
    resolve_sampler: ResolveSampler


@dataclass(frozen=True, kw_only=True)
class RowRules:
    """The rules of one manifest.

    Attributes:
        catalog: LoRAs by name.
        lora_files: Looks at the files of the LoRAs that rows name.
        base_models: By the name that rows give them; the empty name is for rows that give none.
        method: For rows that name none.
        methods: The known ones.
        composition_findings: Why method, prompt and LoRAs of a row don't go together.
        dtype: Part of every key.
        engine_version: Part of every key.
        allowed: Where files that rows name may be.
    """

    catalog: Mapping[str, LoraEntry]
    lora_files: LoraFiles
    base_models: Mapping[str, RowModel]
    method: str
    methods: Sequence[str]
    composition_findings: FindComposition
    dtype: str
    engine_version: int | str
    allowed: AllowedRoots = EVERYWHERE
