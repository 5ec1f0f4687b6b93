"""The layers that a LoRA file changes, put together from its tensors' names and shapes.

A tensor that is silently left out is a wrong picture later. So every name is sorted into a layer
and a part, every layer has both halves, and the halves fit each other, or the file is refused.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.kinds import PLAIN_CAYLEY, Cayley, Kind, kind_of, update_size
from clora_core.recipe.lora.names import (
    COMFYUI_PREFIX,
    KOHYA_OFT_PREFIX,
    PEFT_PREFIX,
    dotted_layer_name,
    flat_layer_name,
    split_layer_name,
)
from clora_core.recipe.lora.parts import Part, TensorName, adapter_name, tensor_name
from clora_core.recipe.lora.shapes.size import PartsError, Shape, UpdateSize

ACCEPTED = (
    "LoRA, LoCon, LoHa, LoKr, DoRA, GLoRA, OFT and trained norms of all common tools are read"
)

LimitRule = Literal["whole", "by output", "by output, 0 too"]

_TEXT_ENCODER = re.compile(r"^lora_te|(^|\.)text_encoder|(^|[._])text_model[._]")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraLayer:
    """One adapted layer.

    Attributes:
        name: As the file names it, without the part.
        kind: Of its update.
        tensors: Names of the parts' tensors.
        shapes: Of these tensors.
        size: Of the update.
        owner: Component by what is said beside the file; None where the name alone says it.
        is_ranked: Its rank is what is said beside the file, also where its tensors have none.
        cayley: How a packed rotation was trained.
    """

    name: str
    kind: Kind
    tensors: Mapping[Part, str]
    shapes: Mapping[Part, Shape]
    size: UpdateSize
    owner: str | None = None
    is_ranked: bool = False
    cayley: Cayley = PLAIN_CAYLEY

    @property
    def rank(self) -> int:
        """What an alpha is divided by."""
        return self.size.rank

    @property
    def alpha(self) -> str | None:
        """Name of the tensor of one number that says its strength; None without one."""
        return self.tensors.get("alpha") if self.is_scaled else None

    @property
    def idle_alpha(self) -> str | None:
        """Name of an alpha that says nothing; some trainers write an infinite one."""
        is_read = self.is_scaled or self.kind in ("oft", "boft")
        return None if is_read else self.tensors.get("alpha")

    @property
    def is_scaled(self) -> bool:
        """It has a strength beside its weights: alpha over rank.

        Whole weights have none, and of a Kronecker product of two whole factors no trainer takes
        alpha into account. Of a rotation alpha is what bounds its angle.
        """
        if self.kind == "lokr":
            return self.is_ranked or "lokr_w1" not in self.tensors or "lokr_w2" not in self.tensors
        return self.kind in ("lora", "loha", "glora")

    @property
    def is_of_peft(self) -> bool:
        """Its names are those of peft's own files, or its settings are."""
        return self.owner is not None or self.name.startswith(PEFT_PREFIX)

    @property
    def limit_rule(self) -> LimitRule | None:
        """What the alpha of a rotation bounds; None where there is none.

        ``whole``: ComfyUI's the norm of all angles. ``by output``: that divided by the number of
        outputs. ``by output, 0 too``: kohya's, for which 0 is a bound and not none.
        """
        if self.kind not in ("oft", "boft") or "alpha" not in self.tensors:
            return None
        if self.name.startswith(COMFYUI_PREFIX):
            return "whole"
        return "by output, 0 too" if self.name.startswith(KOHYA_OFT_PREFIX) else "by output"

    @property
    def rotation_rule(self) -> str:
        """What decides a rotation beside its tensors, as a text; empty for other kinds."""
        if self.kind not in ("oft", "boft"):
            return ""
        return f" {self.limit_rule}" + (
            f" {self.cayley} {self.is_of_peft}" if "oft_R" in self.tensors else ""
        )

    @property
    def is_decomposed(self) -> bool:
        """Its magnitude is trained apart (DoRA)."""
        return "dora_scale" in self.tensors or "magnitude" in self.tensors

    @property
    def needs_base_weights(self) -> bool:
        """What it adds depends on the numbers of the base model's weight."""
        return self.is_decomposed or self.kind in ("glora", "oft", "boft")

    @property
    def changes_weight(self) -> bool:
        """It changes a weight of two sides or more."""
        return self.kind != "difference" or len(self.shapes.get("diff", ())) > 1

    @property
    def changes_norm(self) -> bool:
        """It is the difference of a norm's scale, with or without one of its shift."""
        return len(self.shapes.get("diff", ())) == 1

    @property
    def changes_bias(self) -> bool:
        """A bias is trained with it, or alone; a norm's shift is none."""
        return not self.changes_norm and bool({"bias", "diff_b"} & self.tensors.keys())

    @property
    def in_features(self) -> int | None:
        """Inputs (channels, for a convolution); None where the tensors do not say."""
        return None if self.size.repeats else self.size.in_features

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

    def misfit(self, weight: Shape) -> str | None:
        """Return why it is no update of a weight of this shape, None if it is one."""
        size = self.size
        if self.is_of_peft and self.kind == "oft" and prod(weight[2:]) > 1:
            return "a rotation that peft makes of patches, which is no change of a weight"
        is_norms = self.kind == "difference" and len(self.shapes.get("diff", (1,))) == 1
        if (len(weight) == 1 and not is_norms) or not size.fits(weight):
            shapes = " and ".join(
                str(self.shapes[part]) for part in self.tensors if part not in ("alpha", "bias")
            )
            return f"shapes {shapes}, the base model's layer has {weight}"
        if len(weight) > 1 and is_norms and "diff" in self.shapes:
            return f"a norm's difference, the base model's layer has {weight}"
        bias = self.shapes.get("bias", self.shapes.get("diff_b"))
        if bias is not None and bias != weight[:1]:
            return f"a trained bias of shape {bias}, the base model's layer has {weight}"
        if self.is_decomposed and self.magnitude_axis(weight) is None:
            shape = self.shapes.get("dora_scale", self.shapes.get("magnitude"))
            return f"a magnitude of shape {shape}, the base model's layer has {weight}"
        return None

    def magnitude_axis(self, weight: Shape) -> Literal[0, 1] | None:
        """Return the axis of a weight of this shape that the magnitude is of: outputs or inputs.

        None if it is of neither. A matrix of one column or one row stands for both; then it is of
        the outputs, as trainers have it first.
        """
        shape = self.shapes.get("magnitude")
        if shape is not None:
            is_row = sum(side > 1 for side in shape) <= 1
            return 0 if is_row and prod(shape) == weight[0] else None
        shape = self.shapes.get("dora_scale", ())
        if prod(shape) == weight[0] and shape[:1] == weight[:1]:
            return 0
        return (
            1 if len(shape) > 1 and shape[0] == 1 and prod(shape) == shape[1] == weight[1] else None
        )

    @property
    def in_text_encoder(self) -> bool:
        """The layer is a text encoder's, also where the name has no component."""
        return self.component.startswith("text_encoder") or bool(_TEXT_ENCODER.search(self.name))


def tensor_names(path: str | Path, names: Iterable[str]) -> dict[str, TensorName]:
    """Return what the names of a file's tensors mean.

    Raises:
        LoraFileError: A name that none of the formats has, or names of two adapters.
    """
    read = {name: tensor_name(name) for name in names}
    strange = [name for name, meaning in read.items() if meaning is None]
    if strange:
        raise LoraFileError(
            f"{path} holds {len(strange)} of {len(read)} tensors that are no part of a LoRA, "
            f"such as {strange[0][:200]!r}; {ACCEPTED}"
        )
    _refuse_two_adapters(path, read)
    return {name: meaning for name, meaning in read.items() if meaning is not None}


def _refuse_two_adapters(path: str | Path, names: Iterable[str]) -> None:
    """Refuse a file that peft's model was dumped into with several adapters in it."""
    found: dict[str, str] = {}
    for name in names:
        if (adapter := adapter_name(name)) is not None:
            found.setdefault(adapter, name)
    if len(found) > 1:
        shown = ", ".join(f"{adapter[:50]!r}" for adapter in list(found)[:5])
        raise LoraFileError(
            f"{path} holds tensors of {len(found)} adapters ({shown}), and a LoRA file is one; "
            "save each with peft's or diffusers' own function into a file of its own"
        )


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
    path: str | Path, name: str, tensors: Mapping[Part, str], shapes: Mapping[str, Shape]
) -> LoraLayer:
    by_part: dict[Part, Shape] = {part: shapes[tensor] for part, tensor in tensors.items()}
    try:
        kind = kind_of(by_part)
        size = update_size(kind, by_part)
    except PartsError as error:
        raise LoraFileError(
            f"{path}, layer {name[:200]!r} {error}; download it again, or save it with the tool "
            "that has trained it"
        ) from error
    return LoraLayer(name=name, kind=kind, tensors=tensors, shapes=by_part, size=size)
