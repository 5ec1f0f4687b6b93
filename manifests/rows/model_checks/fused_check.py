"""Whether the LoRAs of a row can be fused, known from their files before a run."""

from collections.abc import Callable

from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Lora, Row
from manifests.loras.file import LoraFileInfo
from manifests.text.wording import Findings

_PLAIN = frozenset({"LoRA", "LoCon", "Tucker LoCon"})
"""Kinds that alone would be fused; something that is trained beside them is not."""


def fused_findings(row: Row, info_of: Callable[[Lora], LoraFileInfo | None]) -> Findings:
    """Return why LoRAs of a row cannot be fused, nothing for a method that fuses none.

    Args:
        row: A row that is right otherwise.
        info_of: Returns what a LoRA's file is; None if it cannot be used, for which there
            is a finding already.
    """
    if METHODS[row.method].fused_by is None:
        return []
    findings: Findings = []
    for lora in row.concepts:
        info = info_of(lora)
        if info is None:
            continue
        kinds = [
            kind
            for component, kinds in info.not_fused.items()
            if component == "unet" or row.sampler.text_encoder_lora
            for kind in kinds
            if kind not in _PLAIN
        ]
        if kinds:
            text = (
                f"{row.method!r} fuses plain LoRAs alone, and LoRA {lora.name!r} has "
                f"{', '.join(dict.fromkeys(kinds))}; {_converted(info)}use 'merge' or another "
                "method that fuses nothing"
            )
            findings.append(("method", text))
    return findings


def _converted(info: LoraFileInfo) -> str:
    """Return the way to a plain LoRA, empty where nothing of the file has a place in one."""
    if info.conversion is None:
        return ""
    return f"convert it with `{' '.join(('clora loras convert', *info.conversion))}`, or "
