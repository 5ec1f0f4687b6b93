"""Where each tensor of a LoRA file belongs in a base model, told by names and shapes alone.

A run asks before it uses a weight, and a check beforehand asks where no model is loaded; both get
their answer here, so that they cannot differ.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clora_core.errors import LoraFileError
from clora_core.lora.names import LayerNames, Part, split_key

Shape = tuple[int, ...]

Placed = Mapping[tuple[str, str], Mapping[Part, str]]
"""(Component, layer) to the names of its down, up and, if there is one, alpha tensor."""

MAX_LISTED = 3


def placed_tensors(
    path: str | Path,
    shapes: Mapping[str, Shape],
    names: LayerNames,
    layer_shape: Callable[[str, str], Shape],
) -> Placed:
    """Return the layer of every tensor of a file.

    Args:
        path: The file, for messages.
        shapes: Of its tensors, by name.
        names: Of the base model's layers.
        layer_shape: Takes component and layer; returns the shape of the layer's weight.

    Raises:
        LoraFileError: A tensor finds no layer, a layer has half an update or two, or shapes that
            are not the base model's (with how many layers fit, and names of some that don't).
    """
    placed: dict[tuple[str, str], dict[Part, str]] = {}
    strangers: dict[str, None] = {}
    for key in shapes:
        name = names.parse(key)
        if name is None:
            strangers[split_key(key)[0]] = None
            continue
        found = placed.setdefault((name.component, name.layer), {})
        if name.part in found:
            raise LoraFileError(
                f"{path} holds the {name.part} factor of {name.component}.{name.layer} twice, the "
                f"second time as {key!r}; export the LoRA with one tool"
            )
        found[name.part] = key
    if strangers:
        raise LoraFileError(
            f"{path} matches this base model in {len(placed)} of {len(placed) + len(strangers)} "
            f"layers; there is no place for {_listed(tuple(strangers))}. It was trained for "
            f"another base model, or is not a plain LoRA: use a LoRA or a base model of the same "
            f"family"
        )
    for (component, layer), found in placed.items():
        _check_whole(path, f"{component}.{layer}", found, shapes)
    _check_shapes(path, placed, shapes, layer_shape)
    return placed


def _check_whole(
    path: str | Path, layer: str, found: Mapping[Part, str], shapes: Mapping[str, Shape]
) -> None:
    for part in ("down", "up"):
        if part not in found:
            raise LoraFileError(f"{path} has no {part} factor for {layer}; export the LoRA again")
    alpha = shapes[found["alpha"]] if "alpha" in found else ()
    if any(length != 1 for length in alpha):
        raise LoraFileError(
            f"{path} has an alpha of shape {alpha} for {layer}; it must be one number, export the "
            f"LoRA again"
        )


def _check_shapes(
    path: str | Path,
    placed: Placed,
    shapes: Mapping[str, Shape],
    layer_shape: Callable[[str, str], Shape],
) -> None:
    misfits: list[str] = []
    first = ""
    for (component, layer), found in placed.items():
        down, up, weight = shapes[found["down"]], shapes[found["up"]], layer_shape(component, layer)
        if not _fits(down, up, weight):
            first = first or f"shapes {down} and {up}, the base model's layer has {weight}"
            misfits.append(f"{component}.{layer}")
    if misfits:
        others = f" ({_listed(misfits[1:])} don't fit either)" if misfits[1:] else ""
        raise LoraFileError(
            f"{path} matches this base model in {len(placed) - len(misfits)} of {len(placed)} "
            f"layers: factors of {misfits[0]} have {first}{others}; the LoRA was trained for "
            f"another base model, use a LoRA or a base model of the same family"
        )


def _fits(down: Shape, up: Shape, weight: Shape) -> bool:
    return (
        len(down) in (2, 4)
        and len(up) in (2, 4)
        and 0 not in down
        and down[:2] == (up[1], weight[1])
        and up[0] == weight[0]
        and _kernel(down) == _kernel(weight)
        and _kernel(up) == (1, 1)
    )


def _kernel(weight: Shape) -> Shape:
    """Return the size of a convolution's kernel; a linear layer is one of 1x1."""
    return weight[2:] or (1, 1)


def _listed(layers: Sequence[str]) -> str:
    more = len(layers) - MAX_LISTED
    told = ", ".join(repr(layer[:100]) for layer in layers[:MAX_LISTED])
    return told + (f" and {more:,} more" if more > 0 else "")
