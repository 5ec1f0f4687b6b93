"""The layers of a base model that a LoRA can change, read from the headers of its weight files.

Names and shapes are all that is asked, so a model of ten gigabytes is known after a few hundred
kilobytes, and no model library is needed.
"""

import re
from pathlib import Path

from clora_core.recipe.errors import CloraError, LoraFileError
from clora_core.recipe.lora.layers import Shape
from clora_core.recipe.lora.placement import ModelLayers
from manifests.weights.base_model import BaseModelProblem, model_config
from manifests.weights.header import read_header

MAX_WEIGHT_FILE_BYTES = 64 * 1024**3

_WEIGHT_FILES = {
    "unet": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
"""Components that LoRAs change, and what diffusers and transformers call their weights."""

_PIECE = re.compile(r"-\d+-of-(\d+)\.safetensors\Z")


class UnknownLayersError(CloraError):
    """The folder does not tell its layers; the message names what is missing."""


def model_layers(folder: str | Path) -> ModelLayers:
    """Return the linear layers and convolutions of a base model in diffusers format.

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
                component: _layers(root / component, name)
                for component, name in _WEIGHT_FILES.items()
                if component in components
            }
        )
    except (BaseModelProblem, LoraFileError) as error:
        raise UnknownLayersError(str(error)) from error


def _layers(folder: Path, name: str) -> dict[str, Shape]:
    layers: dict[str, Shape] = {}
    for file in _files(folder, name):
        header = read_header(file, max_file_bytes=MAX_WEIGHT_FILE_BYTES)
        for tensor, entry in header.tensors.items():
            layer, _, part = tensor.rpartition(".")
            # Norms have one dimension. Embeddings look like linear layers and no LoRA changes them.
            if part == "weight" and len(entry.shape) in (2, 4) and not layer.endswith("embedding"):
                layers[layer] = entry.shape
    return layers


def _files(folder: Path, name: str) -> list[Path]:
    """Return the file of weights, or all of its pieces."""
    whole = folder / f"{name}.safetensors"
    if whole.is_file():
        return [whole]
    pieces = sorted(folder.glob(f"{name}-*-of-*.safetensors"))
    counts = {found[1] for piece in pieces if (found := _PIECE.search(piece.name))}
    if len(counts) != 1 or int(counts.pop()) != len(pieces):
        raise UnknownLayersError(f"{whole} is not there, and not all of its pieces are")
    return pieces
