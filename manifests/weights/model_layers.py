"""The layers of a base model that a LoRA can change, read from the headers of its weight files.

Names and shapes are all that is asked, so a model of ten gigabytes is known after a few hundred
kilobytes, and no model library is needed.
"""

from collections.abc import Mapping
from pathlib import Path

from clora_core.recipe.errors import CloraError, LoraFileError
from clora_core.recipe.lora.placement import ModelLayers
from clora_core.recipe.lora.shapes.size import Shape
from clora_core.recipe.weight_files import Library, weight_files
from manifests.weights.header import read_header
from manifests.weights.model_config import BaseModelProblem, model_config
from manifests.weights.model_files import MAX_WEIGHT_FILE_BYTES

_COMPONENTS: Mapping[str, Library] = {
    "unet": "diffusers",
    "text_encoder": "transformers",
    "text_encoder_2": "transformers",
}
"""Those that LoRAs change, and what loads their weights."""


class UnknownLayersError(CloraError):
    """The folder does not tell its layers; the message names what is missing."""


def model_layers(folder: str | Path) -> ModelLayers:
    """Return the linear layers, convolutions and norms of a base model in diffusers format.

    Raises:
        UnknownLayersError: Weights of a component are not here as safetensors, or cannot be read.
    """
    root = Path(folder)
    try:
        index = model_config(root, "model_index.json")
        # A part that a pipeline leaves out stands there as [null, null].
        components = {name for name, part in index.items() if isinstance(part, list) and any(part)}
        if "unet" not in components:
            raise UnknownLayersError(f"{root / 'model_index.json'} names no unet")
        return ModelLayers(
            {
                component: _layers(root / component, library)
                for component, library in _COMPONENTS.items()
                if component in components
            }
        )
    except (BaseModelProblem, LoraFileError) as error:
        raise UnknownLayersError(str(error)) from error


def _layers(folder: Path, library: Library) -> dict[str, Shape]:
    layers: dict[str, Shape] = {}
    for file in _files(folder, library):
        header = read_header(file, max_file_bytes=MAX_WEIGHT_FILE_BYTES)
        for tensor, entry in header.tensors.items():
            layer, _, part = tensor.rpartition(".")
            # Embeddings look like linear layers and no adapter changes them; norms have one side.
            if (
                part == "weight"
                and len(entry.shape) in (1, 2, 4)
                and not layer.endswith("embedding")
            ):
                layers[layer] = entry.shape
    return layers


def _files(folder: Path, library: Library) -> list[Path]:
    """Return the file of weights, or all of its pieces."""
    weights = weight_files(folder, library)
    if weights.problem is not None:
        raise UnknownLayersError(f"{folder} {weights.problem}")
    others = [file for file in weights.files if file.suffix != ".safetensors"]
    if others:
        raise UnknownLayersError(
            f"{others[0]} is no safetensors file, which alone is read for this"
        )
    return list(weights.files)
