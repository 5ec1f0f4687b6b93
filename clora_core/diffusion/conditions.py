"""What the UNet is shown beside the latents, lane by lane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """Conditions of some lanes.

    Attributes:
        text: Token embeddings.
        added: What XL's UNet takes too, by diffusers' names: ``text_embeds``, the pooled text, and
            ``time_ids``, the image's size. Empty for Stable Diffusion 1.x.
    """

    text: Float[Tensor, "lane token channel"]
    added: Mapping[str, Float[Tensor, "lane _"]] = field(default_factory=dict)

    def __getitem__(self, lanes: slice) -> "Conditions":
        added = {name: values[lanes] for name, values in self.added.items()}
        return Conditions(self.text[lanes], added)

    @classmethod
    def join(cls, parts: Sequence["Conditions"]) -> "Conditions":
        """Return the lanes of all ``parts`` of one base model, one after the other."""
        added = {name: torch.cat([part.added[name] for part in parts]) for name in parts[0].added}
        return cls(torch.cat([part.text for part in parts]), added)
