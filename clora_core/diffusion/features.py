"""Self-attention features of one block: which positions of an image look alike to the model.

FreeFuse (arXiv 2510.23515) reads them, and the cross-attention beside them, in one block of the
UNet's first stage upwards: the fourth transformer block of ``up_blocks.0.attentions.0`` of Stable
Diffusion XL, which is at its maps' resolution. Other models take the same stage of theirs: the
first attention upwards at the maps' resolution, and in it the fourth block or the last.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from clora_core.diffusion.attention import MapLayers

PUBLISHED_BLOCK = 3
"""Place of the block among those of its attention, where there are so many."""


@dataclass
class FeatureCapture:
    """Keeps the features of the last pass, without a graph."""

    _features: Float[Tensor, "lane position feature"] | None = field(default=None, init=False)

    def add(self, features: Float[Tensor, "lane position feature"]) -> None:
        """Take a pass's features."""
        self._features = features.detach()

    def take(self) -> Float[Tensor, "lane position feature"]:
        """Return the last pass's features and forget them."""
        if self._features is None:
            raise RuntimeError("read no self-attention features in this pass")
        features, self._features = self._features, None
        return features


def similarity_layer(layers: MapLayers) -> str:
    """Return the cross-attention whose block gives the features, one of the map layers."""
    upwards = [name for name in layers.names if name.startswith("up_blocks.")] or [*layers.names]
    stage = upwards[0].rsplit(".transformer_blocks.", 1)[0]
    blocks = [name for name in upwards if name.startswith(stage + ".")] or upwards[:1]
    return blocks[min(PUBLISHED_BLOCK, len(blocks) - 1)]


@contextmanager
def capturing_features(unet: nn.Module, cross_attention: str) -> Generator[FeatureCapture]:
    """Read the self-attention beside ``cross_attention`` inside the block."""
    capture = FeatureCapture()
    beside = unet.get_submodule(cross_attention.removesuffix("attn2") + "attn1")

    def read(
        _module: nn.Module, _args: Any, output: Float[Tensor, "lane position feature"]
    ) -> None:
        capture.add(output)

    handle = beside.register_forward_hook(read)
    try:
        yield capture
    finally:
        handle.remove()
