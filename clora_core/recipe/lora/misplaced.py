"""What an adapter's file may hold that has no place in a plain LoRA, and whether it may go."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.embeddings import Embedding
from clora_core.recipe.lora.layers import LoraLayer

LEFT_OUT: Mapping[str, tuple[str, str]] = {
    "norms": ("trained norm", "trained norms"),
    "biases": ("trained bias", "trained biases"),
    "words": ("embedding", "embeddings"),
}
"""What one and several of each are called, by its name on the command line."""


def left_out(
    file: Path, layers: Sequence[LoraLayer], embeddings: Sequence[Embedding], allowed: str | None
) -> dict[str, int]:
    """Return how much of each is left out, by its name on the command line; nothing of none.

    Args:
        file: For messages.
        layers: Of the file.
        embeddings: Of the file.
        allowed: Names of what may be left out, with commas between.

    Raises:
        LoraFileError: There is something that may not be left out, or nothing else.
    """
    found = misplaced(layers, embeddings)
    what = " and ".join(counted_things(found, list(found)))
    if not any(layer.changes_weight for layer in layers):
        raise LoraFileError(
            f"{file} holds {what} and nothing that has a place in a plain LoRA; use the file as it "
            "is"
        )
    if not found.keys() <= set((allowed or "").split(",")):
        has = "has" if sum(found.values()) == 1 else "have"
        raise LoraFileError(
            f"{file} holds {what}, which {has} no place in a plain LoRA; convert the rest with "
            f"--leave-out {','.join(found)}"
        )
    return found


def misplaced(layers: Sequence[LoraLayer], embeddings: Sequence[Embedding]) -> dict[str, int]:
    """Return how much of each has no place in a plain LoRA, by its name on the command line."""
    counts = {
        "norms": sum(layer.changes_norm for layer in layers),
        "biases": sum(layer.changes_bias for layer in layers),
        "words": len(embeddings),
    }
    return {name: count for name, count in counts.items() if count}


def counted_things(found: Mapping[str, int], names: Sequence[str]) -> list[str]:
    """Return ``12 trained norms`` and the like for each name."""
    return [f"{found[name]:,} {LEFT_OUT[name][found[name] > 1]}" for name in names]
