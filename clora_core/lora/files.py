"""Reading a LoRA file into factors, and refusing one that would silently do less than it says.

Every tensor of the file must find its layer, every factor its partner, every shape its layer's and
every value must be finite: diffusers loads files that fail any of these with a warning or nothing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clora_core.errors import LoraFileError
from clora_core.lora.factors import Factor, LoraFactors
from clora_core.lora.names import LayerNames, written_layer
from clora_core.lora.placement import placed_tensors
from clora_core.lora.scales import finite_scale, read_scales


def lora_targets(components: Mapping[str, nn.Module]) -> LayerNames:
    """Return the names of all layers of ``components`` that a LoRA can change."""
    return LayerNames(
        {
            name: [
                layer
                for layer, module in component.named_modules()
                if isinstance(module, nn.Linear | nn.Conv2d)
            ]
            for name, component in components.items()
        }
    )


def read_lora(
    path: str | Path, components: Mapping[str, nn.Module], names: LayerNames
) -> LoraFactors:
    """Return the factors of the LoRA at ``path`` for the model made of ``components``.

    Raises:
        LoraFileError: The file cannot be read, is no plain LoRA, does not fit this model (with how
            many of its layers match), or holds values that are not finite.
    """
    tensors, metadata = _read(Path(path))
    if not tensors:
        raise LoraFileError(f"{path} holds no tensors; it is empty, export the LoRA again")
    placed = placed_tensors(
        path,
        {key: tuple(tensor.shape) for key, tensor in tensors.items()},
        names,
        lambda component, layer: tuple(_weight(components[component], layer).shape),
    )
    scales = read_scales(path, metadata)
    by_component: dict[str, dict[str, Factor]] = {}
    for (component, layer), keys in placed.items():
        down, up = tensors[keys["down"]], tensors[keys["up"]]
        alpha = float(tensors[keys["alpha"]]) if "alpha" in keys else None
        if not bool(torch.isfinite(down).all() & torch.isfinite(up).all()):
            raise LoraFileError(
                f"{path} holds values that are not finite in {component}.{layer}; its training "
                f"diverged, take an earlier checkpoint"
            )
        # The file's patterns speak of layers as it names them, and so does its identity.
        named = written_layer(keys["down"]) or layer
        scale = scales.scale(component, named, down.shape[0], alpha)
        finite_scale(path, f"{component}.{layer}", scale)
        factor = Factor(down.contiguous(), up.contiguous(), scale)
        by_component.setdefault(component, {})[layer] = factor
    return LoraFactors(by_component)


def _read(path: Path) -> tuple[dict[str, Shaped[Tensor, "..."]], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise LoraFileError(f"{path} does not exist; correct the catalog's uri") from error
    except (SafetensorError, OSError) as error:
        raise LoraFileError(
            f"{path} cannot be read as safetensors ({error}); it may be truncated or another "
            f"format, copy or export it again"
        ) from error


def _weight(component: nn.Module, layer: str) -> Float[Tensor, "out in *kernel"]:
    # To the type checker any attribute of a module may be a module, too.
    return cast("Tensor", component.get_submodule(layer).weight)
