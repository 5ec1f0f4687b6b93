"""Textual-inversion embeddings in a file, by its tensors' names and shapes.

A file may be an embedding, or a LoRA that brings embeddings along ("bundled"). The formats:

- ``emb_params`` or ``string_to_param.*`` [vector, channel]: one text encoder (A1111, sd-scripts).
- ``clip_l`` and ``clip_g``: XL's two text encoders; ``clip_l`` alone is that of SD 1.x.
- one tensor whose name is the word itself (diffusers), or several in angle brackets, such as
  ``<toy-cat>``.
- ``bundle_emb.NAME.`` and one of the first two (A1111, OneTrainer).

A single vector may have one dimension. The first two have no name of their own: they are called
what their file is called.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.parts import tensor_name
from clora_core.recipe.lora.placement import ModelLayers
from clora_core.recipe.lora.shapes.size import Shape

MAX_VECTORS = 75
"""Of one embedding: the words that CLIP reads at once, which cannot be parted."""

_PARTS: Mapping[str, str] = {
    "emb_params": "text_encoder",
    "string_to_param": "text_encoder",
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
}
_OWN = re.compile(r"(emb_params|clip_l|clip_g|string_to_param)(?:(?<=string_to_param)\.[^.]*)?")
_BUNDLED = re.compile(rf"bundle_emb\.(?P<name>.+)\.{_OWN.pattern}")
_BRACKETED = re.compile(r"<[^<>]+>")
_WORD = re.compile(rf"{_BRACKETED.pattern}|[^.<>]+")
_WIDTH = re.compile(r"(?:^|\.)layers\.0\.self_attn\.q_proj$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Embedding:
    """One embedding of a file.

    Attributes:
        name: What texts call it; None where it is called what its file is called.
        tensors: Name of the tensor, by component of the model.
        widths: Channels of each vector, by component.
        num_vectors: Tokens that its name stands for, as many in each component.
    """

    name: str | None
    tensors: Mapping[str, str]
    widths: Mapping[str, int]
    num_vectors: int

    def called(self, stem: str) -> str:
        """Return its name in a file called ``stem`` (without the ending)."""
        return self.name or " ".join(stem.split())


@dataclass(frozen=True, kw_only=True, slots=True)
class FileParts:
    """What a file holds.

    Attributes:
        embeddings: Sorted by name.
        layers: Shapes of all other tensors, which are a LoRA's layers.
    """

    embeddings: tuple[Embedding, ...]
    layers: Mapping[str, Shape]


def file_parts(path: str | Path, shapes: Mapping[str, Shape]) -> FileParts:
    """Return the embeddings of a file, and the tensors that are none.

    Args:
        path: The file, for messages.
        shapes: Of its tensors, by name.

    Raises:
        LoraFileError: A part of an embedding is missing, unknown, or has a shape that is none; a
            word stands beside other tensors.
    """
    are_words = len(shapes) == 1 or all(map(_BRACKETED.fullmatch, shapes))
    found: dict[str | None, dict[str, str]] = {}
    layers: dict[str, Shape] = {}
    for tensor, shape in shapes.items():
        place = _place(tensor)
        if place is None and are_words and _is_word(tensor, shape):
            place = tensor, "emb_params"
        if place is None:
            if not are_words and _BRACKETED.fullmatch(tensor):
                raise LoraFileError(
                    f"{path} holds {tensor[:200]!r}, which is an embedding as diffusers names it, "
                    "beside tensors that are none such; save the words in a file of their own"
                )
            if tensor.startswith("bundle_emb."):
                raise LoraFileError(
                    f"{path} holds {tensor[:200]!r}, and of bundled embeddings "
                    "bundle_emb.NAME.emb_params, .string_to_param.*, .clip_l and .clip_g are read; "
                    "save it for one of SD 1.x, SD 2.x and SDXL"
                )
            layers[tensor] = shape
            continue
        name, part = place
        parts = found.setdefault(name, {})
        if part in parts:
            raise LoraFileError(
                f"{path} holds {part} of one embedding twice, as {parts[part][:100]!r} and "
                f"{tensor[:100]!r}; save it with one tool"
            )
        parts[part] = tensor
    ordered = sorted(found.items(), key=lambda item: item[0] or "")
    embeddings = tuple(_embedding(path, name, parts, shapes) for name, parts in ordered)
    return FileParts(embeddings=embeddings, layers=layers)


def text_widths(model: ModelLayers) -> dict[str, int]:
    """Return the channels of a token in each text encoder of ``model``, by its layers' shapes."""
    return {
        component: shape[1]
        for component, layers in model.shapes.items()
        if component.startswith("text_encoder")
        for name, shape in layers.items()
        if _WIDTH.search(name)
    }


def check_widths(
    path: str | Path, embeddings: tuple[Embedding, ...], widths: Mapping[str, int]
) -> None:
    """Refuse embeddings that are not for a base model whose text encoders have these ``widths``.

    Raises:
        LoraFileError: It is for other text encoders.
    """
    for each in embeddings:
        if dict(each.widths) != dict(widths):
            own, model = (
                " and ".join(f"{width:,}" for _, width in sorted(of.items()))
                for of in (each.widths, widths)
            )
            named = f"the embedding {each.name[:100]!r}" if each.name else "an embedding"
            raise LoraFileError(
                f"{path} holds {named} of width {own}, and the text encoders of the base model "
                f"have {model or 'none'}; use an embedding or a base model of the same family"
            )


def _place(tensor: str) -> tuple[str | None, str] | None:
    """Return name and part of an embedding's tensor, None if it is none."""
    if own := _OWN.fullmatch(tensor):
        return None, own[1]
    if bundled := _BUNDLED.fullmatch(tensor):
        return bundled["name"], bundled[2]
    return None


def _is_word(tensor: str, shape: Shape) -> bool:
    """Return whether a file's only tensor is an embedding under its own name."""
    return len(shape) in (1, 2) and tensor_name(tensor) is None and bool(_WORD.fullmatch(tensor))


def _embedding(
    path: str | Path, name: str | None, parts: Mapping[str, str], shapes: Mapping[str, Shape]
) -> Embedding:
    named = f"the embedding {name[:100]!r}" if name else "an embedding"
    where = f"{path} holds {named}"
    if set(parts) not in ({"emb_params"}, {"string_to_param"}, {"clip_l"}, {"clip_l", "clip_g"}):
        raise LoraFileError(
            f"{where} with {' and '.join(sorted(parts))}; it has emb_params or clip_l (SD 1.x, SD "
            "2.x), or both clip_l and clip_g (SDXL): save it again"
        )
    sizes: set[int] = set()
    widths: dict[str, int] = {}
    for part, tensor in parts.items():
        shape = shapes[tensor]
        if len(shape) not in (1, 2) or 0 in shape:
            raise LoraFileError(
                f"{where} of shape {list(shape)}; it must be [vectors, width], none of them 0"
            )
        sizes.add(1 if len(shape) == 1 else shape[0])
        widths[_PARTS[part]] = shape[-1]
    if len(sizes) > 1:
        raise LoraFileError(
            f"{where} with {' and '.join(map(str, sorted(sizes)))} vectors for the two text "
            "encoders; they must have as many: save it again"
        )
    (num_vectors,) = sizes
    if num_vectors > MAX_VECTORS:
        raise LoraFileError(
            f"{where} of {num_vectors} vectors, and a text encoder reads {MAX_VECTORS} at once; "
            "train it with fewer"
        )
    if name is not None and not name.strip():
        raise LoraFileError(f"{where}, whose name is blank; save it under a name")
    return Embedding(
        name=None if name is None else " ".join(name.split()),
        tensors={_PARTS[part]: tensor for part, tensor in parts.items()},
        widths=widths,
        num_vectors=num_vectors,
    )
