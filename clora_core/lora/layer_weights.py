"""LoRA weights by layer: what a lane takes of each LoRA where layers differ.

The bank takes them in place of one weight a lane and LoRA. Layers that are not named have the
weights of all others, so only what a method chooses is written out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """LoRA weights by lane, layer and LoRA.

    Attributes:
        elsewhere: Weights of layers that are not named.
        weights: Weights of those that are.
        layers: The place of each named layer in ``weights``.
    """

    elsewhere: Float[Tensor, "lane lora"]
    weights: Float[Tensor, "lane layer lora"]
    layers: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.elsewhere)

    def __getitem__(self, lanes: slice) -> "LayerWeights":
        return LayerWeights(self.elsewhere[lanes], self.weights[lanes], self.layers)

    def of(self, layer: str) -> Float[Tensor, "lane lora"]:
        """Return the weights of one layer."""
        place = self.layers.get(layer)
        return self.elsewhere if place is None else self.weights[:, place]

    def repeat(self, times: int) -> "LayerWeights":
        """Return all lanes ``times`` times, one round after the other."""
        return LayerWeights(
            self.elsewhere.repeat(times, 1), self.weights.repeat(times, 1, 1), self.layers
        )
