"""How strong each layer of a LoRA is: alpha over rank, as peft has it.

An alpha stands as a tensor beside its layer, or in peft's settings. diffusers writes these as JSON
under ``lora_adapter_metadata``: a pipeline's each with its component in front, a single model's
without, as it names its layers without. peft itself keeps them in a file of their own
(``peft_folder``). There a pattern of the layer's name may give it, and rank-stabilised LoRAs divide
it by the root of the rank. Without an alpha the scale is 1; but settings with a rank or its root
and no alpha leave peft at its own default alpha.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.alpha_patterns import AlphaPatterns, as_alpha, cost_problem
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.placement import Place

_PEFT_ALPHA = 8.0
"""What peft takes for ``lora_alpha`` if nothing is said."""


def metadata_settings(
    metadata: Mapping[str, str], bare_components: Collection[str] = ()
) -> Mapping[str, Any]:
    """Return peft's settings in a file's metadata; none, where they cannot be read.

    Of a key that is given twice the last counts.

    Args:
        metadata: Of the file.
        bare_components: Those of a file whose layers' names say none: settings that say none
            either are theirs. Elsewhere such settings are nobody's, as in diffusers.
    """
    try:
        values: Any = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError):
        values = {}
    settings = cast("dict[str, Any]", values) if isinstance(values, dict) else {}
    bare = {name: value for name, value in settings.items() if "." not in name}
    return {
        f"{component}.{name}": value
        for component in sorted(bare_components)
        for name, value in bare.items()
    } | settings


class PeftScales:
    """The scales that peft's settings give.

    Args:
        settings: With the component before each name, from ``described_lora``.
        tries_patterns: Try patterns that are no plain names, too; ``read_scales`` sees to it that
            they are cheap. Otherwise what they decide is left open.
    """

    def __init__(self, settings: Mapping[str, Any], *, tries_patterns: bool = False) -> None:
        self.settings = settings
        self._tries_patterns = tries_patterns
        self._patterns: dict[str, AlphaPatterns] = {}

    def scale(
        self, component: str, layer: str | None, rank: int, alpha: float | None = None
    ) -> float:
        """Return the factor of one layer's update; NaN where it is left open.

        Args:
            component: ``unet``, ``text_encoder`` ...
            layer: Dotted name of the layer, as the file has it; None if it isn't known.
            rank: Of its factors.
            alpha: From the file's own alpha tensor, which comes first; None without one.
        """
        divisor = self.divisor(component, rank)
        if alpha is not None:
            return alpha / divisor
        scales: set[float] = set()
        for possible in self._of(component).possible(layer):
            given = self._default_alpha(component) if possible is None else possible
            scales.add(1.0 if given is None else given / divisor)
            if len(scales) > 1:
                return math.nan
        return scales.pop()

    def divisor(self, component: str, rank: int) -> float:
        """Return what an alpha is divided by: rank-stabilised LoRAs take the root of the rank."""
        return rank**0.5 if self._is_stabilised(component) else float(rank)

    def rules(self, component: str) -> str:
        """Return all that decides the scales of a component's layers beside their ranks."""
        rules = (
            self._of(component).rules,
            self._default_alpha(component),
            self._is_stabilised(component),
        )
        return f"{component}\0{json.dumps(rules)}"

    def _default_alpha(self, component: str) -> float | None:
        counts = self._is_stabilised(component) or f"{component}.r" in self.settings
        absent = _PEFT_ALPHA if counts else None
        return as_alpha(self.settings.get(f"{component}.lora_alpha", absent))

    def _is_stabilised(self, component: str) -> bool:
        return self.settings.get(f"{component}.use_rslora") is True

    def _of(self, component: str) -> AlphaPatterns:
        if component not in self._patterns:
            self._patterns[component] = AlphaPatterns(
                self.settings.get(f"{component}.alpha_pattern"), are_tried=self._tries_patterns
            )
        return self._patterns[component]


def read_scales(path: str | Path, settings: Mapping[str, Any]) -> PeftScales:
    """Return the scales that the settings of the file ``path`` give, with nothing left open.

    Raises:
        LoraFileError: A layer pattern is no regular expression, or one that may not end.
    """
    scales = PeftScales(settings, tries_patterns=True)
    for name, patterns in scales.settings.items():
        if name.endswith("alpha_pattern") and isinstance(patterns, dict):
            problem = cost_problem(cast("dict[str, Any]", patterns))
            if problem is not None:
                raise LoraFileError(f"{path} cannot be scaled: {problem}")
    return scales


def layer_scale(
    scales: PeftScales, layer: LoraLayer, component: str, name: str | None, alpha: float | None
) -> float:
    """Return the factor of a layer's update; NaN where it is left open, 1 where it has none.

    Args:
        scales: Of the file.
        layer: Of the file.
        component: That the layer is in.
        name: Its dotted name; None if it isn't known.
        alpha: From the layer's alpha tensor; None without one.
    """
    return scales.scale(component, name, layer.rank, alpha) if layer.is_scaled else 1.0


def placed_scale(
    path: str | Path,
    scales: PeftScales,
    place: Place,
    layer: LoraLayer,
    alpha: float | None = None,
) -> float:
    """Return the factor of a layer that has its place in a model.

    Args:
        path: The file, for messages.
        scales: Of the file, from ``read_scales``.
        place: In the model.
        layer: Of the file.
        alpha: From the layer's alpha tensor; None without one.

    Raises:
        LoraFileError: The factor is not finite.
    """
    component, name = place
    # The file's patterns speak of layers as it names them, and so does its identity.
    scale = layer_scale(scales, layer, component, layer.dotted_name or name, alpha)
    if not math.isfinite(scale):
        raise LoraFileError(
            f"{path} holds an alpha that is not finite for {component}.{name}; its training "
            f"diverged, take an earlier checkpoint"
        )
    return scale
