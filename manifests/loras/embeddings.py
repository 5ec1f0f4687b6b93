"""Textual-inversion embeddings of a LoRA file: for which models they are, and what they are called.

What tensors mean is said by ``clora_core.recipe.lora.embeddings``.
"""

from collections.abc import Mapping, Sequence

from clora_core.recipe.lora.embeddings import Embedding
from clora_core.recipe.reading.embedded import EmbeddedWord
from manifests.loras.family import UNKNOWN_FAMILY
from manifests.loras.file_stem import file_stem

ONE_ENCODER = "text_encoder"

_FAMILIES: Mapping[tuple[tuple[str, int], ...], str] = {
    ((ONE_ENCODER, 768),): "SD1.x",
    ((ONE_ENCODER, 1024),): "SD2.x",
    ((ONE_ENCODER, 768), ("text_encoder_2", 1280)): "SDXL",
}


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
        uri: Where people know the file (path, URI or hub name): an embedding without a name is
            called by it.
    """
    stem = file_stem(uri)
    return tuple(EmbeddedWord(each.called(stem), each.num_vectors) for each in embeddings)
