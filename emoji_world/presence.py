"""The judge: which classes, instances and places are in a picture, and where.

A small fully convolutional network that saw every instance while it was trained. It is an oracle
for tests and benchmarks and not a score of the product: scores come from the DINO model,
which was told no names.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class PresenceNet(nn.Module):
    """Logits of what is where (8×8 cells) and of the place."""

    def __init__(self, labels: Sequence[str], places: Sequence[str], width: int = 48) -> None:
        """Build the untrained network for these labels and places."""
        super().__init__()
        self.labels, self.places, self.width = tuple(labels), tuple(places), width

        def block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
                nn.GroupNorm(8, channels_out),
                nn.SiLU(),
            )

        self.trunk = nn.Sequential(
            block(3, width // 2),
            block(width // 2, width, 2),
            block(width, width),
            block(width, 2 * width, 2),
            block(2 * width, 2 * width),
            block(2 * width, 2 * width, 2),
            block(2 * width, 2 * width),
        )
        self.things = nn.Sequential(
            block(2 * width, 2 * width), nn.Conv2d(2 * width, len(self.labels), 1)
        )
        self.place = nn.Linear(2 * width, len(self.places))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of things [n, label, 8, 8] and of places [n, place].

        Args:
            pixels: Pictures in [-1, 1], [n, 3, 64, 64].
        """
        features = self.trunk(pixels)
        return self.things(features), self.place(features.mean((2, 3)))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge sees in one picture.

    Attributes:
        present: Label -> probability that it is somewhere in the picture.
        place: The likeliest place.
    """

    present: dict[str, float]
    place: str


def image_logits(things: Tensor) -> Tensor:
    """Return the logit that a thing is anywhere, [n, label]: that of its best cell."""
    return things.amax((2, 3))


@torch.no_grad()
def judge(net: PresenceNet, images: Sequence[NDArray[np.uint8]]) -> list[Verdict]:
    """Return a verdict for each RGB picture [64, 64, 3]."""
    device = next(net.parameters()).device
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    things, places = net(pixels.to(device))
    probabilities = image_logits(things).sigmoid().cpu().numpy()
    best = places.argmax(1).cpu().numpy()
    return [
        Verdict(
            present=dict(zip(net.labels, map(float, row), strict=True)), place=net.places[place]
        )
        for row, place in zip(probabilities, best, strict=True)
    ]


def save_presence(net: PresenceNet, path: Path) -> None:
    """Write the network, fp16, its labels in the metadata."""
    tensors = {
        name: value.detach().half().cpu().contiguous() for name, value in net.state_dict().items()
    }
    described = {"labels": net.labels, "places": net.places, "width": net.width}
    save_file(tensors, path, metadata={"presence": json.dumps(described)})


def load_presence(path: Path) -> PresenceNet:
    """Read a network of ``save_presence``, in float32 and evaluation mode.

    Raises:
        ValueError: The file is no presence network.
    """
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata() or {}
    if "presence" not in metadata:
        raise ValueError(f"{path}: has no 'presence' metadata; it is not a presence network")
    net = PresenceNet(**json.loads(metadata["presence"]))
    net.load_state_dict({name: value.float() for name, value in load_file(path).items()})
    return net.eval()
