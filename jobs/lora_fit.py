"""Whether LoRA files fit a base model, asked of the sampler itself before anything is started.

How names are matched with layers is the sampler's rule, what a base model's layers are is told by
its files' headers. Manifests know neither, so the answer is passed in from here; a file that passes
is not refused later for where its layers belong or how they are scaled.
"""

from pathlib import Path

from clora_core.errors import LoraFileError
from clora_core.lora.names import LayerNames, written_layer
from clora_core.lora.placement import placed_tensors
from clora_core.lora.scales import finite_scale, read_scales
from manifests.lora_files import FindMisfit
from manifests.model_layers import ModelLayers
from manifests.safetensors_header import Header

__all__ = ["lora_fit"]


def lora_fit(layers: ModelLayers) -> FindMisfit:
    """Return what tells why a LoRA file does not fit the base model that has ``layers``."""
    names = LayerNames(layers)

    def misfit(path: Path, header: Header) -> str | None:
        shapes = {name: entry.shape for name, entry in header.tensors.items()}
        try:
            placed = placed_tensors(
                path, shapes, names, lambda component, layer: layers[component][layer]
            )
            scales = read_scales(path, header.metadata)
            for (component, layer), found in placed.items():
                if "alpha" not in found:
                    rank = shapes[found["down"]][0]
                    named = written_layer(found["down"]) or layer
                    scale = scales.scale(component, named, rank, None)
                    finite_scale(path, f"{component}.{layer}", scale)
        except LoraFileError as error:
            return str(error)
        return None

    return misfit
