"""Textual-inversion embeddings of a LoRA file: for which models they are, and what they are called.

What tensors mean is said by ``clora_core.recipe.lora.embeddings``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.embeddings import Embedding
from clora_core.recipe.reading.embedded import EmbeddedWord
from manifests.loras.family import UNKNOWN_FAMILY
from manifests.loras.format import FLOATS
from manifests.places.place_names import split_options
from manifests.weights.header import TensorEntry

ONE_ENCODER = "text_encoder"

_FAMILIES: Mapping[tuple[tuple[str, int], ...], str] = {
    ((ONE_ENCODER, 768),): "SD1.x",
    ((ONE_ENCODER, 1024),): "SD2.x",
    ((ONE_ENCODER, 768), ("text_encoder_2", 1280)): "SDXL",
}


def refuse_other_numbers(
    path: Path, embeddings: Sequence[Embedding], tensors: Mapping[str, TensorEntry]
) -> None:
    """Refuse vectors of a dtype that isn't supported.

    Raises:
        LoraFileError: As it says.
    """
    for each in embeddings:
        for name in each.tensors.values():
            if tensors[name].dtype not in FLOATS:
                raise LoraFileError(
                    f"{path}, tensor {name[:200]!r} is {tensors[name].dtype}; "
                    "floating-point numbers of 8 to 64 bits are read: save it as F16"
                )


def embedding_family(embeddings: Sequence[Embedding]) -> str:
    """Return the family of base models of a file's embeddings, ``unknown`` if they leave it open.

    Args:
        embeddings: At least one.
    """
    families = {
        _FAMILIES.get(tuple(sorted(each.widths.items())), UNKNOWN_FAMILY) for each in embeddings
    }
    return families.pop() if len(families) == 1 else UNKNOWN_FAMILY


def embedded_words(embeddings: Sequence[Embedding], uri: str) -> tuple[EmbeddedWord, ...]:
    """Return the names of a file's embeddings, and how many vectors each has.

    Args:
        embeddings: Of the file.
        uri: Where people know the file: an embedding without a name is called by it.
    """
    stem = PurePosixPath(split_options(uri)[0]).stem
    return tuple(EmbeddedWord(each.called(stem), each.num_vectors) for each in embeddings)
