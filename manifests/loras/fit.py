"""Whether a LoRA file fits a base model, found out by the sampler's rules before anything starts.

A file that passes is not refused later for where its layers belong or how they are scaled.
"""

from dataclasses import dataclass
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.embeddings import check_widths, text_widths
from clora_core.recipe.lora.placement import ModelLayers, placed_layers
from clora_core.recipe.lora.scales import placed_scale, read_scales
from manifests.loras.family import misfit
from manifests.loras.file import LoraFileInfo, header_lora
from manifests.weights.header import read_header


@dataclass(frozen=True, kw_only=True)
class LoraFit:
    """What a base model asks of its LoRAs.

    Attributes:
        model_width: Its cross-attention width; LoRAs of another are refused. None if it isn't
            known.
        layers: That LoRAs can change; None if they aren't known.
    """

    model_width: int | None = None
    layers: ModelLayers | None = None

    def check(self, path: Path, info: LoraFileInfo) -> None:
        """Refuse a usable LoRA file that does not fit.

        Args:
            path: The file.
            info: Of that file.

        Raises:
            LoraFileError: It was made for another family, its layers find no place or have other
                shapes, or a strength in its settings cannot be used.
        """
        reason = misfit(
            family=info.family, lora_width=info.cross_attention_width, model_width=self.model_width
        )
        if reason is not None:
            raise LoraFileError(f"{path} {reason}")
        if self.layers is None:
            return
        header = read_header(path)
        lora = header_lora(path, header)
        placed = placed_layers(path, lora.layers, self.layers)
        check_widths(path, lora.embeddings, text_widths(self.layers))
        scales = read_scales(path, lora.settings)
        for place, layer in placed.items():
            if layer.alpha is None:
                placed_scale(path, scales, place, layer)
