"""Reading a LoRA file into factors, and refusing one that would silently do less than it says.

Every tensor of the file must find its layer, every factor its partner, every shape its layer's and
every value must be finite: diffusers loads files that fail any of these with a warning or nothing.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clora_core.errors import LoraFileError
from clora_core.lora.factors import Factor, LoraFactors
from clora_core.lora.names import LayerNames
from clora_core.lora.scales import MetadataScales


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
            many of its tensors match), or holds values that are not finite.
    """
    tensors, metadata = _read(Path(path))
    if not tensors:
        raise LoraFileError(f"{path} holds no tensors; it is empty, export the LoRA again")
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    strangers: list[str] = []
    for key, tensor in tensors.items():
        name = names.parse(key)
        if name is None:
            strangers.append(key)
            continue
        found = parts.setdefault((name.component, name.layer), {})
        if name.part in found:
            raise LoraFileError(
                f"{path} holds the {name.part} factor of {name.component}.{name.layer} twice, the "
                f"second time as {key!r}; export the LoRA with one tool"
            )
        found[name.part] = tensor
    if strangers:
        raise LoraFileError(
            f"{path} matches this base model in {len(tensors) - len(strangers)} of {len(tensors)} "
            f"tensors; the first that fits no layer is {strangers[0]!r}. It was trained for "
            f"another base model, or is not a plain LoRA"
        )
    try:
        scales = MetadataScales.read(metadata)
    except LoraFileError as error:
        raise LoraFileError(f"{path} cannot be scaled: {error}") from error
    by_component: dict[str, dict[str, Factor]] = {}
    for (component, layer), found in parts.items():
        module = components[component].get_submodule(layer)
        down, up, alpha = _checked(path, f"{component}.{layer}", found, module)
        scale = scales.scale(component, layer, down.shape[0], alpha)
        if not math.isfinite(scale):
            raise LoraFileError(
                f"{path} holds an alpha that is not finite for {component}.{layer}; its training "
                f"diverged, take an earlier checkpoint"
            )
        by_component.setdefault(component, {})[layer] = Factor(down, up, scale)
    return LoraFactors(by_component)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
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


def _checked(
    path: str | Path, layer: str, found: Mapping[str, Tensor], module: nn.Module
) -> tuple[Tensor, Tensor, float | None]:
    """Return a layer's down and up factors and its alpha, or refuse the file."""
    down, up = found.get("down"), found.get("up")
    if down is None or up is None:
        missing = "down" if down is None else "up"
        raise LoraFileError(f"{path} has no {missing} factor for {layer}; export the LoRA again")
    weight: Tensor = module.weight  # type: ignore[assignment]
    fits = (
        down.ndim in (2, 4)
        and up.ndim in (2, 4)
        and down.shape[:2] == (up.shape[1], weight.shape[1])
        and up.shape[0] == weight.shape[0]
        and _kernel(down) == _kernel(weight)
        and _kernel(up) == (1, 1)
    )
    if not fits:
        raise LoraFileError(
            f"{path}: factors of {layer} have shapes {tuple(down.shape)} and {tuple(up.shape)}, "
            f"the base model's layer has {tuple(weight.shape)}; the LoRA was trained for another "
            f"base model"
        )
    alpha: float | None = None
    if "alpha" in found:
        if found["alpha"].numel() != 1:
            raise LoraFileError(
                f"{path} has an alpha of shape {tuple(found['alpha'].shape)} for {layer}; it must "
                f"be one number, export the LoRA again"
            )
        alpha = float(found["alpha"])
    if not bool(torch.isfinite(down).all() & torch.isfinite(up).all()):
        raise LoraFileError(
            f"{path} holds values that are not finite in {layer}; its training diverged, take an "
            f"earlier checkpoint"
        )
    return down.contiguous(), up.contiguous(), alpha


def _kernel(weight: Tensor) -> tuple[int, ...]:
    """Return the size of a convolution's kernel; a linear layer is one of 1x1."""
    return tuple(weight.shape[2:]) or (1, 1)
