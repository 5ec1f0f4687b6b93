"""Which numbers the tensors of a LoRA file may be, by the names that safetensors gives them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.embeddings import Embedding
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.parts import Part

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Of weights and vectors."""

_INTEGERS = frozenset({"I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8"})
_MORE: Mapping[Part, frozenset[str]] = {
    "alpha": _INTEGERS,
    "scaled_oft": _INTEGERS | {"BOOL"},
}
"""Beside floating-point numbers."""


def refuse_other_numbers(
    path: str | Path,
    layers: Sequence[LoraLayer],
    embeddings: Sequence[Embedding],
    dtypes: Mapping[str, str],
) -> None:
    """Refuse tensors of numbers that are not read.

    Args:
        path: The file, for messages.
        layers: Of the file.
        embeddings: Of the file.
        dtypes: Of its tensors, by name.

    Raises:
        LoraFileError: As it says.
    """
    kept = {name: FLOATS for each in embeddings for name in each.tensors.values()}
    kept |= {
        name: FLOATS | _MORE.get(part, frozenset())
        for layer in layers
        for part, name in layer.tensors.items()
    }
    for name, allowed in kept.items():
        if dtypes[name] not in allowed:
            raise LoraFileError(
                f"{path}, tensor {name[:200]!r} is {dtypes[name]}; floating-point numbers of 8 to "
                "64 bits are read: save it as F16"
            )
