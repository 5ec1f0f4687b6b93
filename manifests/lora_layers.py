"""Which adapter a file holds, told by the names and shapes of its tensors.

Tools write the same low-rank update under different names. Here each name is sorted into a layer
and a part (down, up, alpha); a name that fits nothing is a reason to refuse the file, because a
tensor that is silently left out is a wrong picture later. Other kinds of adapter are refused by
their own name, with what would work instead.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from manifests.lora_names import plain_layer_name
from manifests.other_adapters import other_kind
from manifests.safetensors_header import LoraFileProblem, TensorEntry

__all__ = ["FileFormat", "LoraLayer", "file_format", "lora_layers", "tensor_part"]

FileFormat = Literal["kohya", "locon", "diffusers", "peft", "peft without prefix"]

_ACCEPTED = "kohya, LoCon, diffusers and peft LoRAs are read"

_KOHYA = r"^(?P<layer>lora_(?:unet|te|te1|te2|te3|transformer|prior)_[\w\-]+)"
_PARTS: tuple[tuple[re.Pattern[str], FileFormat], ...] = (
    (re.compile(_KOHYA + r"\.(?P<part>lora_down|lora_up)\.weight\Z"), "kohya"),
    (re.compile(_KOHYA + r"\.(?P<part>alpha)\Z"), "kohya"),
    (
        re.compile(r"^(?P<layer>.+?)(?P<part>\.lora_A|\.lora_B)(?:\.default(?:_\d+)?)?\.weight\Z"),
        "peft",
    ),
    (re.compile(r"^(?P<layer>.+?)(?P<part>\.lora\.down|\.lora\.up)\.weight\Z"), "diffusers"),
    (re.compile(r"^(?P<layer>.+?_lora)(?P<part>\.down|\.up)\.weight\Z"), "diffusers"),
    (
        re.compile(r"^(?P<layer>.+?)(?P<part>\.lora_linear_layer\.down|\.lora_linear_layer\.up)\.weight\Z"),
        "diffusers",
    ),
    (re.compile(r"^(?P<layer>.+?)(?P<part>\.alpha)\Z"), "diffusers"),
)  # fmt: skip
_ROLE = {"down": "down", "lora_down": "down", "lora_A": "down"}
_PREFIX = re.compile(r"^(unet|text_encoder|text_encoder_2|text_encoder_3|transformer)\.")
_FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraLayer:
    """One adapted layer.

    Attributes:
        name: As the file names it, without the part.
        rank: Inner dimension.
        in_features: Inputs (channels, for a convolution).
        out_features: Outputs.
        kernel: Height and width of a convolution; None for a linear layer.
        in_text_encoder: The layer is the text encoder's.
    """

    name: str
    rank: int
    in_features: int
    out_features: int
    kernel: tuple[int, int] | None
    in_text_encoder: bool


def file_format(path: Path, tensors: Mapping[str, TensorEntry]) -> FileFormat:
    """Return how the file names its tensors.

    Raises:
        LoraFileProblem: Another kind of adapter, a full checkpoint, a mix of formats, or a name
            that none of the formats has.
    """
    other = other_kind(tensors)
    if other is not None:
        sentence, hits = other
        raise LoraFileProblem(
            f"{path} {sentence} ({hits} of {len(tensors)} tensors say so; {_ACCEPTED})"
        )
    found: dict[FileFormat, str] = {}
    strange: list[str] = []
    for name in tensors:
        match = tensor_part(name)
        if match is None:
            strange.append(name)
        elif not name.endswith(".alpha") or match[1] == "kohya":
            found.setdefault(match[1], name)
    if strange:
        raise LoraFileProblem(
            f"{path} holds {len(strange)} of {len(tensors)} tensors that are no part of a LoRA, "
            f"such as {strange[0][:200]!r}; {_ACCEPTED}"
        )
    if len(found) > 1:
        raise LoraFileProblem(
            f"{path} mixes formats ({', '.join(f'{k}: {v[:100]!r}' for k, v in found.items())}); "
            "save it with one tool"
        )
    if not found:
        raise LoraFileProblem(f"{path} holds scaling factors (alpha) and no weights")
    (kind,) = found
    if kind == "kohya" and any(_is_spatial(entry.shape) for entry in tensors.values()):
        return "locon"
    if kind == "peft" and not all(_PREFIX.match(name) for name in tensors):
        return "peft without prefix"
    return kind


def lora_layers(path: Path, tensors: Mapping[str, TensorEntry]) -> tuple[LoraLayer, ...]:
    """Return the adapted layers, sorted by name; every one has both halves, and they fit.

    Args:
        path: For messages.
        tensors: Of a file that ``file_format`` has accepted.

    Raises:
        LoraFileProblem: A half is missing, shapes don't fit, or a dtype isn't supported.
    """
    halves: dict[str, dict[str, TensorEntry]] = {}
    for name, entry in tensors.items():
        match = tensor_part(name)
        if match is None:
            raise LoraFileProblem(f"{path} holds {name[:200]!r}, which is no part of a LoRA")
        layer, role = match[0], match[2]
        if role != "alpha" and entry.dtype not in _FLOATS:
            raise LoraFileProblem(
                f"{path}, tensor {name[:200]!r} is {entry.dtype}; "
                "only F32, F16 and BF16 are supported: save it as F16"
            )
        if role in halves.setdefault(layer, {}):
            raise LoraFileProblem(f"{path} holds {role!r} of {layer[:200]!r} twice")
        halves[layer][role] = entry
    _refuse_layers_named_twice(path, halves)
    return tuple(_layer(path, name, halves[name]) for name in sorted(halves))


def is_text_encoder(layer: str) -> bool:
    """Return whether a layer of this name is the text encoder's."""
    return bool(re.search(r"^lora_te|(^|\.)text_encoder|(^|[._])text_model[._]", layer))


def tensor_part(name: str) -> tuple[str, FileFormat, str] | None:
    """Return (layer, format, role) of a tensor name, or None; role is down, up or alpha."""
    for pattern, kind in _PARTS:
        found = pattern.match(name)
        if found is not None:
            part = found["part"].rpartition(".")[2]
            role = "alpha" if part == "alpha" else _ROLE.get(part, "up")
            return found["layer"], kind, role
    return None


def _refuse_layers_named_twice(path: Path, names: Iterable[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(plain_layer_name(name), name)
        if other != name:
            raise LoraFileProblem(
                f"{path} holds one layer twice, as {other[:100]!r} and {name[:100]!r}; "
                "save it with one tool, under one name a layer"
            )


def _layer(path: Path, name: str, halves: Mapping[str, TensorEntry]) -> LoraLayer:
    where = f"{path}, layer {name[:200]!r}"
    for role, other in (("down", "up"), ("up", "down")):
        if role not in halves:
            have = other if other in halves else "alpha"
            raise LoraFileProblem(
                f"{where} has {have} but no {role} weights; the file is incomplete: "
                "download or save it again"
            )
    down, up = halves["down"].shape, halves["up"].shape
    if len(down) not in (2, 4) or len(down) != len(up) or 0 in down or 0 in up:
        raise LoraFileProblem(
            f"{where} has shapes {list(down)} and {list(up)}; both have two dimensions (linear) "
            "or four (convolution), none of them 0"
        )
    if down[0] != up[1]:
        raise LoraFileProblem(
            f"{where} has rank {down[0]} in its down and {up[1]} in its up weights; they must agree"
        )
    if len(up) == 4 and up[2:] != (1, 1):
        raise LoraFileProblem(f"{where} has up weights of shape {list(up)}; the kernel must be 1x1")
    if "alpha" in halves and halves["alpha"].shape not in ((), (1,)):
        raise LoraFileProblem(f"{where} has an alpha of shape {list(halves['alpha'].shape)}")
    return LoraLayer(
        name=name,
        rank=down[0],
        in_features=down[1],
        out_features=up[0],
        kernel=(down[2], down[3]) if len(down) == 4 else None,
        in_text_encoder=is_text_encoder(name),
    )


def _is_spatial(shape: Iterable[int]) -> bool:
    dimensions = tuple(shape)
    return len(dimensions) == 4 and dimensions[2:] != (1, 1)
