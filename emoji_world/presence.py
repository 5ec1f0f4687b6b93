"""The judge: which classes, instances and places are in a picture, where, and how many of each.

A small fully convolutional network that saw every instance while it was trained. It is an oracle
for tests and benchmarks and not a score of the product: scores come from the DINO model,
which was told no names.

It answers two questions about an instance apart. *Present*: would one say that this is it, half
blended with something else as it may be? *Identity*: is it clearly this individual and no other?
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from emoji_world.bestiary import NOUNS

FOUND = 0.5
"""Probability from which on something is there."""

DOUBLED = 1.5
"""More copies of one noun than this are a double."""


class Seen(NamedTuple):
    """What the network says of n pictures, cells of 8 px.

    Attributes:
        things: Logits that a label is present, [n, label, 8, cells].
        individuals: Logits that an instance is clearly itself, [n, instance, 8, cells].
        copies: How much of a copy is here, [n, label, 8, cells]; the sum counts them.
        places: Logits of the place, [n, place].
    """

    things: Tensor
    individuals: Tensor
    copies: Tensor
    places: Tensor


def _block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.GroupNorm(8, channels_out),
        nn.SiLU(),
    )


class PresenceNet(nn.Module):
    """Logits of what is where (cells of 8 px), of who it clearly is, copies, and the place."""

    def __init__(
        self,
        labels: Sequence[str],
        places: Sequence[str],
        width: int = 48,
        individuals: Sequence[str] = (),
    ) -> None:
        """Build the untrained network; without ``individuals`` it answers presence alone."""
        super().__init__()
        self.labels, self.places, self.width = tuple(labels), tuple(places), width
        self.individuals = tuple(individuals)
        self.trunk = nn.Sequential(
            _block(3, width // 2),
            _block(width // 2, width, 2),
            _block(width, width),
            _block(width, 2 * width, 2),
            _block(2 * width, 2 * width),
            _block(2 * width, 2 * width, 2),
            _block(2 * width, 2 * width),
        )

        def head(outputs: int) -> nn.Sequential:
            return nn.Sequential(_block(2 * width, 2 * width), nn.Conv2d(2 * width, outputs, 1))

        self.things = head(len(self.labels))
        self.place = nn.Linear(2 * width, len(self.places))
        if self.individuals:
            self.identity = head(len(self.individuals))
            self.copies = head(len(self.labels))

    def forward(self, pixels: Tensor) -> Seen:
        """Return what is seen in pictures in [-1, 1], [n, 3, 64, width]."""
        features = self.trunk(pixels)
        things = self.things(features)
        none = things[:, :0]
        return Seen(
            things=things,
            individuals=self.identity(features) if self.individuals else none,
            copies=functional.softplus(self.copies(features)) if self.individuals else none,
            places=self.place(features.mean((2, 3))),
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the judge sees in one picture.

    Attributes:
        present: Label -> probability that it is recognisable somewhere in the picture.
        place: The likeliest place.
        identity: Instance -> probability that it is clearly this individual.
        copies: Label -> how many of them there are.
    """

    present: dict[str, float]
    place: str
    identity: dict[str, float] = field(default_factory=dict)
    copies: dict[str, float] = field(default_factory=dict)


def figures_of(verdict: Verdict, instances: Sequence[str]) -> dict[str, float]:
    """Return what a verdict says of a picture that should show some instances, 0 to 1 each.

    ``presence_all`` and ``presence_share``: all, and what share, are recognisable.
    ``identity_all``: all are clearly themselves. ``doubled``: there is more than one of a noun.
    The last two are missing for a judge that answers presence alone.
    """
    hits = [verdict.present[name] > FOUND for name in instances]
    figures = {"presence_all": float(all(hits)), "presence_share": sum(hits) / len(hits)}
    if verdict.identity:
        clearly = all(verdict.identity[name] > FOUND for name in instances)
        figures |= {"identity_all": float(clearly), "doubled": float(is_doubled(verdict))}
    return figures


def is_doubled(verdict: Verdict) -> bool:
    """Return whether there is more than one of a noun."""
    return any(verdict.copies.get(noun, 0.0) > DOUBLED for noun in NOUNS)


def image_logits(things: Tensor) -> Tensor:
    """Return the logit that a thing is anywhere, [n, label]: that of its best cell."""
    return things.amax((2, 3))


@torch.no_grad()
def judge(net: PresenceNet, images: Sequence[NDArray[np.uint8]]) -> list[Verdict]:
    """Return a verdict for each RGB picture [64, width, 3], all of one width."""
    device = next(net.parameters()).device
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    seen = net(pixels.to(device))
    present = image_logits(seen.things).sigmoid().cpu().numpy()
    identity = (
        image_logits(seen.individuals).sigmoid().cpu().numpy()
        if net.individuals
        else np.zeros((len(present), 0))
    )
    copies = seen.copies.sum((2, 3)).cpu().numpy()
    best = seen.places.argmax(1).cpu().numpy()

    def named(names: Sequence[str], row: NDArray[np.floating]) -> dict[str, float]:
        return dict(zip(names, map(float, row), strict=True))

    counted = net.labels if net.individuals else ()
    return [
        Verdict(
            present=named(net.labels, present[row]),
            place=net.places[best[row]],
            identity=named(net.individuals, identity[row]),
            copies=named(counted, copies[row]),
        )
        for row in range(len(present))
    ]


def save_presence(net: PresenceNet, path: Path) -> None:
    """Write the network, fp16, its labels in the metadata."""
    tensors = {
        name: value.detach().half().cpu().contiguous() for name, value in net.state_dict().items()
    }
    described = {
        "labels": net.labels,
        "places": net.places,
        "width": net.width,
        "individuals": net.individuals,
    }
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
