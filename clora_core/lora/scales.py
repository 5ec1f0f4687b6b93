"""How strong a LoRA is where its file says so in metadata instead of alpha tensors.

diffusers writes peft's settings as JSON under ``lora_adapter_metadata``, each with its component in
front. A layer's alpha may be given by a pattern of its name, and rank-stabilised LoRAs divide it by
the root of the rank. The patterns are a stranger's regular expressions: only those are tried that
cannot run for hours.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from clora_core.errors import LoraFileError

MAX_PATTERNS = 5000
MAX_WILD_PATTERNS = 16
MAX_PATTERN_CHARACTERS = 200
_PLAIN = re.compile(r"\^?[\w.\-]+\$?")
_FEW_QUANTIFIERS = re.compile(r"[^*+?{(]*(?:[*+?][^*+?{(]*){0,2}")


@dataclass(frozen=True)
class MetadataScales:
    """What the metadata of one file says; nothing, where it says nothing we can read."""

    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> "MetadataScales":
        """Return the scales that safetensors ``metadata`` tell of; damaged metadata say nothing.

        Raises:
            LoraFileError: A layer pattern is no regular expression, or one that may not end.
        """
        try:
            settings: Any = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(settings, dict):
            return cls()
        named = cast("dict[str, Any]", settings)
        for key, value in named.items():
            if key.endswith("alpha_pattern") and isinstance(value, dict):
                _refuse_costly_patterns(list(cast("dict[str, Any]", value)))
        return cls(named)

    @cached_property
    def _patterns(self) -> dict[str, list[tuple[re.Pattern[str], Any]]]:
        """The layer patterns by setting; peft's rule is that one ends the layer's name."""
        return {
            name: [(re.compile(rf"(.*\.)?({p})$"), alpha) for p, alpha in value.items()]
            for name, value in self.settings.items()
            if name.endswith("alpha_pattern") and isinstance(value, dict)
        }

    def scale(self, component: str, layer: str, rank: int, alpha: float | None) -> float:
        """Return the factor of one layer's delta.

        Args:
            component: ``unet``, ``text_encoder`` …
            layer: Dotted name of the layer, as the file has it.
            rank: Of its factors.
            alpha: From the file's own alpha tensor, which comes first; None without one.
        """
        if alpha is None:
            alpha = self._alpha(component, layer)
        if alpha is None:
            return 1.0
        stabilised = self.settings.get(f"{component}.use_rslora") is True
        return alpha / (rank**0.5 if stabilised else rank)

    def _alpha(self, component: str, layer: str) -> float | None:
        patterns = self._patterns.get(f"{component}.alpha_pattern", ())
        alphas: list[Any] = [alpha for pattern, alpha in patterns if pattern.match(layer)]
        alphas.append(self.settings.get(f"{component}.lora_alpha"))
        for alpha in alphas:
            if isinstance(alpha, int | float):
                try:
                    return float(alpha)
                except OverflowError:  # JSON's integers have no end
                    return math.inf
        return None


def read_scales(path: str | Path, metadata: Mapping[str, str]) -> MetadataScales:
    """Return the scales that the metadata of the file ``path`` tell of.

    Raises:
        LoraFileError: As ``MetadataScales.read``, with the file's name.
    """
    try:
        return MetadataScales.read(metadata)
    except LoraFileError as error:
        raise LoraFileError(f"{path} cannot be scaled: {error}") from error


def finite_scale(path: str | Path, layer: str, scale: float) -> float:
    """Return ``scale``; LoraFileError if that of ``layer`` in the file ``path`` is not finite."""
    if not math.isfinite(scale):
        raise LoraFileError(
            f"{path} holds an alpha that is not finite for {layer}; its training diverged, take "
            f"an earlier checkpoint"
        )
    return scale


def _refuse_costly_patterns(patterns: Sequence[str]) -> None:
    if len(patterns) > MAX_PATTERNS:
        raise LoraFileError(
            f"its metadata sets alphas by {len(patterns):,} patterns; at most {MAX_PATTERNS:,} are "
            f"read: save the LoRA with alpha tensors"
        )
    wild = [pattern for pattern in patterns if not _PLAIN.fullmatch(pattern)]
    for pattern in wild:
        try:
            re.compile(pattern)
            is_cheap = bool(_FEW_QUANTIFIERS.fullmatch(pattern))
        except (re.error, OverflowError, RecursionError):
            is_cheap = False
        if not is_cheap or len(pattern) > MAX_PATTERN_CHARACTERS or len(wild) > MAX_WILD_PATTERNS:
            raise LoraFileError(
                f"its metadata sets alphas by the pattern {pattern[:100]!r}; plain layer names and "
                f"up to {MAX_WILD_PATTERNS} patterns with at most two of * + ? are read: save the "
                "LoRA with an alpha for each layer"
            )
