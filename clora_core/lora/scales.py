"""How strong a LoRA is where its file says so in metadata instead of alpha tensors.

diffusers writes peft's settings as JSON under ``lora_adapter_metadata``, each with its component in
front. A layer's alpha may be given by a pattern of its name, and rank-stabilised LoRAs divide it by
the root of the rank.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class MetadataScales:
    """What the metadata of one file says; nothing, where it says nothing we can read."""

    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> "MetadataScales":
        """Return the scales that safetensors ``metadata`` tell of; damaged metadata say nothing."""
        try:
            settings: Any = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        except json.JSONDecodeError:
            return cls()
        return cls(settings) if isinstance(settings, dict) else cls()

    def scale(self, component: str, layer: str, rank: int, alpha: float | None) -> float:
        """Return the factor of one layer's delta.

        Args:
            component: ``unet``, ``text_encoder`` …
            layer: Dotted name of the layer.
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
        patterns: Any = self.settings.get(f"{component}.alpha_pattern")
        alphas: list[Any] = []
        if isinstance(patterns, dict):
            # peft's rule: a pattern is a regular expression that ends the layer's name.
            alphas = [a for p, a in patterns.items() if re.match(rf"(.*\.)?({p})$", layer)]
        alphas.append(self.settings.get(f"{component}.lora_alpha"))
        numbers = [float(a) for a in alphas if isinstance(a, int | float)]
        return numbers[0] if numbers else None
