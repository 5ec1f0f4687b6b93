"""The gate: how much of each LoRA a lane takes at each position of the image.

A lane's parts are what it is composed of: the base and one for each concept. At each position the
masks of all parts add up to 1, and a LoRA's weight there is the masks' mean of its weights in the
parts. The gate knows its masks at the latents' size and pools them to whatever a layer works at.

Layers without positions, such as those that read the time step, take the mean over the image: with
one part everywhere that is the part itself, and each part counts by the area it has.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, eq=False)
class Gate:
    """LoRA weights by lane, position and LoRA.

    Attributes:
        masks: Share of every part at each position of the latents; adds up to 1 over parts.
        weights: LoRA weights of every part.
        elsewhere: LoRA weights outside the transformer blocks, where the gate is for their layers
            alone; None where it is for all layers.
    """

    masks: Float[Tensor, "lane part height width"]
    weights: Float[Tensor, "lane part lora"]
    elsewhere: Float[Tensor, "lane lora"] | None = None
    _masks_at: dict[tuple[int, int], Float[Tensor, "lane part _ _"]] = field(
        default_factory=dict, init=False
    )
    _weights_at: dict[tuple[int, int], Float[Tensor, "lane lora _ _"]] = field(
        default_factory=dict, init=False
    )

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, lanes: slice) -> "Gate":
        elsewhere = None if self.elsewhere is None else self.elsewhere[lanes]
        return Gate(self.masks[lanes], self.weights[lanes], elsewhere)

    def masks_at(self, height: int, width: int) -> Float[Tensor, "lane part {height} {width}"]:
        """Return the masks at another size: each position takes the mean of what it covers."""
        size = (height, width)
        if size not in self._masks_at:
            masks = self.masks
            is_own = size == tuple(masks.shape[2:])
            pooled = masks if is_own else functional.adaptive_avg_pool2d(masks, size)
            self._masks_at[size] = pooled
        return self._masks_at[size]

    def weights_at(self, height: int, width: int) -> Float[Tensor, "lane lora {height} {width}"]:
        """Return the LoRA weights at each position of an image of this size."""
        size = (height, width)
        if size not in self._weights_at:
            masks = self.masks_at(height, width)
            self._weights_at[size] = torch.einsum("lphw,lpr->lrhw", masks, self.weights)
        return self._weights_at[size]

    @property
    def shares(self) -> Float[Tensor, "lane part"]:
        """Each part's share of the image."""
        return self.masks.mean(dim=(2, 3))

    @property
    def mean_weights(self) -> Float[Tensor, "lane lora"]:
        """LoRA weights of layers without positions."""
        return torch.einsum("lp,lpr->lr", self.shares, self.weights)

    def size_of(self, num_positions: int) -> tuple[int, int]:
        """Return height and width of a layer that sees this many positions."""
        height, width = self.masks.shape[2:]
        return level_size(height, width, num_positions)


def level_size(latent_height: int, latent_width: int, num_positions: int) -> tuple[int, int]:
    """Return height and width of the UNet's level that has this many positions.

    From level to level both sides are halved and rounded up.

    Raises:
        ValueError: No level has this many.
    """
    height, width = latent_height, latent_width
    while height * width > num_positions and height * width > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
    if height * width != num_positions:
        raise ValueError(
            f"a layer with {num_positions} positions is at no level of a UNet whose latents are "
            f"{latent_height}x{latent_width}"
        )
    return height, width
