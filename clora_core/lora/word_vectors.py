"""The vectors of embeddings, and how they take the place of a text encoder's own."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class WordVectors:
    """One embedding of a LoRA file.

    Attributes:
        components: Its vectors, by the text encoder that reads them; as many in each.
    """

    components: Mapping[str, Float[Tensor, "vector channel"]]

    @property
    def num_vectors(self) -> int:
        """Tokens that it stands for."""
        return len(next(iter(self.components.values())))

    @property
    def num_bytes(self) -> int:
        """Memory of all vectors."""
        return sum(each.numel() * each.element_size() for each in self.components.values())

    def to(self, device: torch.device) -> "WordVectors":
        """Return the vectors on ``device``, in the numbers of their file."""
        return WordVectors({name: each.to(device) for name, each in self.components.items()})


class Placed(NamedTuple):
    """A vector in place of the token that a lane has at a position of its window."""

    lane: int
    position: int
    vector: Float[Tensor, " channel"]


@contextmanager
def replaced_vectors(encoder: nn.Module, placed: Sequence[Placed]) -> Generator[None]:
    """Give tokens the vectors ``placed`` inside the block, in passes over the same lanes.

    The text encoder adds its positions to them as to any other word's.
    """
    if not placed:
        yield
        return
    lanes = [each.lane for each in placed]
    positions = [each.position for each in placed]

    def replace(
        _module: nn.Module, _args: tuple[Any, ...], output: Float[Tensor, "lane window channel"]
    ) -> Float[Tensor, "lane window channel"]:
        output = output.clone()
        output[lanes, positions] = torch.stack([each.vector.to(output) for each in placed])
        return output

    embedding: nn.Module = encoder.get_input_embeddings()  # type: ignore[operator]
    handle = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
