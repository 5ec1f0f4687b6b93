"""The layers that a LoRA file changes, put together from its tensors' names and shapes.

A tensor that is silently left out is a wrong picture later. So every name is sorted into a layer
and a part, every layer has both halves, and the halves fit each other, or the file is refused.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.names import (
    Part,
    TensorName,
    dotted_layer_name,
    flat_layer_name,
    split_layer_name,
    tensor_name,
)

ACCEPTED = "kohya, LoCon, diffusers and peft LoRAs are read"

Shape = tuple[int, ...]

_TEXT_ENCODER = re.compile(r"^lora_te|(^|\.)text_encoder|(^|[._])text_model[._]")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraLayer:
    """One adapted layer.

    Attributes:
        name: As the file names it, without the part.
        down: Name of the tensor [rank, in] or, for a convolution, [rank, in, height, width].
        up: Name of the tensor [out, rank] or [out, rank, 1, 1].
        alpha: Name of the tensor of one number; None if the file has none.
        down_shape: Of that tensor.
        up_shape: Of that tensor.
        owner: Component by what is said beside the file; None where the name alone says it.
    """

    name: str
    down: str
    up: str
    alpha: str | None
    down_shape: Shape
    up_shape: Shape
    owner: str | None = None

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return self.down_shape[0]

    @property
    def in_features(self) -> int:
        """Inputs (channels, for a convolution)."""
        return self.down_shape[1]

    @property
    def out_features(self) -> int:
        """Outputs."""
        return self.up_shape[0]

    @property
    def kernel(self) -> Shape:
        """Height and width of a convolution; a linear layer is one of 1x1."""
        return self.down_shape[2:] or (1, 1)

    @property
    def component(self) -> str:
        """Part of the model that the layer is in."""
        return self.owner or split_layer_name(self.name)[0]

    @property
    def flat_name(self) -> str:
        """``component.layer`` with the layer's dots as underscores, the same for every tool."""
        return f"{self.component}.{flat_layer_name(self.name).partition('.')[2]}"

    @property
    def dotted_name(self) -> str | None:
        """Name within the component as peft has it; None where the file's names have no dots."""
        return dotted_layer_name(self.name)

    @property
    def in_text_encoder(self) -> bool:
        """The layer is a text encoder's, also where the name has no component."""
        return self.component.startswith("text_encoder") or bool(_TEXT_ENCODER.search(self.name))


def tensor_names(path: str | Path, names: Iterable[str]) -> dict[str, TensorName]:
    """Return what the names of a file's tensors mean.

    Raises:
        LoraFileError: A name that none of the formats has.
    """
    read = {name: tensor_name(name) for name in names}
    strange = [name for name, meaning in read.items() if meaning is None]
    if strange:
        raise LoraFileError(
            f"{path} holds {len(strange)} of {len(read)} tensors that are no part of a LoRA, "
            f"such as {strange[0][:200]!r}; {ACCEPTED}"
        )
    return {name: meaning for name, meaning in read.items() if meaning is not None}


def lora_layers(path: str | Path, shapes: Mapping[str, Shape]) -> tuple[LoraLayer, ...]:
    """Return the adapted layers, sorted by name; every one has both halves, and they fit.

    Args:
        path: The file, for messages.
        shapes: Of its tensors, by name.

    Raises:
        LoraFileError: A name is none of a LoRA, a half is missing or there twice, or shapes don't
            fit each other.
    """
    layers: dict[str, dict[Part, str]] = {}
    for name, meaning in tensor_names(path, shapes).items():
        parts = layers.setdefault(meaning.layer, {})
        if meaning.part in parts:
            raise LoraFileError(
                f"{path} holds {meaning.part!r} of {meaning.layer[:200]!r} twice; save it with one "
                "tool"
            )
        parts[meaning.part] = name
    _refuse_layers_named_twice(path, layers)
    return tuple(_layer(path, name, layers[name], shapes) for name in sorted(layers))


def _refuse_layers_named_twice(path: str | Path, names: Iterable[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(flat_layer_name(name), name)
        if other != name:
            raise LoraFileError(
                f"{path} holds one layer twice, as {other[:100]!r} and {name[:100]!r}; "
                "save it with one tool, under one name a layer"
            )


def _layer(
    path: str | Path, name: str, parts: Mapping[Part, str], shapes: Mapping[str, Shape]
) -> LoraLayer:
    where = f"{path}, layer {name[:200]!r}"
    for part, other in (("down", "up"), ("up", "down")):
        if part not in parts:
            have = other if other in parts else "alpha"
            raise LoraFileError(
                f"{where} has {have} but no {part} weights; the file is incomplete: "
                "download or save it again"
            )
    alpha = parts.get("alpha")
    down, up = shapes[parts["down"]], shapes[parts["up"]]
    if len(down) not in (2, 4) or len(down) != len(up) or 0 in down or 0 in up:
        raise LoraFileError(
            f"{where} has shapes {list(down)} and {list(up)}; both have two dimensions (linear) "
            "or four (convolution), none of them 0"
        )
    if down[0] != up[1]:
        raise LoraFileError(
            f"{where} has rank {down[0]} in its down and {up[1]} in its up weights; they must agree"
        )
    if up[2:] not in ((), (1, 1)):
        raise LoraFileError(f"{where} has up weights of shape {list(up)}; the kernel must be 1x1")
    if alpha is not None and shapes[alpha] not in ((), (1,)):
        raise LoraFileError(
            f"{where} has an alpha of shape {list(shapes[alpha])}; it must be one number"
        )
    return LoraLayer(
        name=name,
        down=parts["down"],
        up=parts["up"],
        alpha=alpha,
        down_shape=down,
        up_shape=up,
    )
