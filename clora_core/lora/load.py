"""Reading a LoRA file into factors, and refusing one that would silently do less than it says.

Every tensor of the file must find its layer, every factor its partner, every shape its layer's and
every value must be finite: diffusers loads files that fail any of these with a warning or nothing.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.update import Update
from clora_core.lora.read_update import read_update
from clora_core.lora.word_vectors import WordVectors
from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.embeddings import Embedding, check_widths, text_widths
from clora_core.recipe.lora.numbers import refuse_other_numbers
from clora_core.recipe.lora.parts import Part
from clora_core.recipe.lora.peft_folder import DescribedLora, described_lora
from clora_core.recipe.lora.placement import ModelLayers, placed_layers
from clora_core.recipe.lora.scales import placed_scale, read_scales


def lora_targets(components: Mapping[str, nn.Module]) -> ModelLayers:
    """Return all layers of ``components`` that an adapter can change."""
    return ModelLayers(
        {
            name: {
                layer: tuple(module.weight.shape)
                for layer, module in component.named_modules()
                if isinstance(module, nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm)
                and "weight" in dict(module.named_parameters(recurse=False))
            }
            for name, component in components.items()
        }
    )


def read_lora(path: str | Path, model: ModelLayers, *, with_words: bool = True) -> LoraFactors:
    """Return the factors of the LoRA at ``path`` for a model with these layers.

    peft's settings beside the file count as far as they are the file's.

    Args:
        path: The file.
        model: The base model's layers.
        with_words: Read its embeddings, too.

    Raises:
        LoraFileError: The file cannot be read, is no plain LoRA, does not fit this model (with how
            many of its layers match), or holds values that are not finite.
    """
    path = Path(path)
    lora, tensors = _read(path)
    scales = read_scales(path, lora.settings)
    by_component: dict[str, dict[str, Update]] = {}
    for place, layer in placed_layers(path, lora.layers, model).items():
        component, name = place
        parts: dict[Part, Shaped[Tensor, ...]] = {
            part: tensors[tensor]
            for part, tensor in layer.tensors.items()
            if tensor != layer.idle_alpha
        }
        if not all(bool(torch.isfinite(tensor).all()) for tensor in parts.values()):
            raise LoraFileError(
                f"{path} holds values that are not finite in {component}.{name}; its training "
                f"diverged, take an earlier checkpoint"
            )
        alpha = None if layer.alpha is None else float(tensors[layer.alpha])
        scale = placed_scale(path, scales, place, layer, alpha)
        update = read_update(layer, parts, model.shapes[component][name], scale)
        by_component.setdefault(component, {})[name] = update
    if not with_words:
        return LoraFactors(by_component)
    check_widths(path, lora.embeddings, text_widths(model))
    words = tuple(_word_vectors(path, each, tensors) for each in lora.embeddings)
    return LoraFactors(by_component, words=words)


def _word_vectors(
    path: Path, embedding: Embedding, tensors: Mapping[str, Shaped[Tensor, "..."]]
) -> WordVectors:
    vectors = {
        component: torch.atleast_2d(tensors[tensor])
        for component, tensor in embedding.tensors.items()
    }
    if not all(bool(torch.isfinite(each).all()) for each in vectors.values()):
        raise LoraFileError(
            f"{path} holds an embedding with values that are not finite; its training diverged, "
            "take an earlier checkpoint"
        )
    return WordVectors(vectors)


def _read(path: Path) -> tuple[DescribedLora, dict[str, Shaped[Tensor, "..."]]]:
    """Return what the file's names and shapes say, and its tensors."""
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            if not names:
                raise LoraFileError(f"{path} holds no tensors; it is empty, export the LoRA again")
            slices = {name: file.get_slice(name) for name in names}
            shapes = {name: tuple(each.get_shape()) for name, each in slices.items()}
            lora = described_lora(path, shapes, file.metadata() or {})
            dtypes = {name: str(each.get_dtype()) for name, each in slices.items()}
            refuse_other_numbers(path, lora.layers, lora.embeddings, dtypes)
            return lora, {name: _readable(file.get_tensor(name)) for name in names}
    except FileNotFoundError as error:
        raise LoraFileError(f"{path} does not exist; correct the catalog's uri") from error
    except (SafetensorError, OSError) as error:
        raise LoraFileError(
            f"{path} cannot be read as safetensors ({error}); it may be truncated or another "
            f"format, copy or export it again"
        ) from error


def _readable(tensor: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """Return numbers of 8 bits as such of 16, which hold every one of them."""
    return (
        tensor.to(torch.float16)
        if tensor.element_size() == 1 and tensor.is_floating_point()
        else tensor
    )
