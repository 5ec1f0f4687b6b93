"""How large an update of a layer is, and whether it is one of a weight of some shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from clora_core.recipe.lora.parts import Part

Shape = tuple[int, ...]
Shapes = Mapping[Part, Shape]


class PartsError(ValueError):
    """The parts of a layer are no update; the message is the end of a sentence."""


@dataclass(frozen=True, slots=True)
class UpdateSize:
    """What a layer's update is as large as.

    Attributes:
        out_features: Outputs; None where only inputs are known.
        in_features: Inputs, or channels; times the kernel's area where ``kernel`` is None.
            None where only outputs are known.
        kernel: Height and width of a convolution; a linear layer is one of 1x1. None where the
            tensors do not say.
        rank: What its alpha is divided by; 1 where there is nothing of the kind.
        repeats: It stands for as many times ``in_features`` inputs as the layer has.
    """

    out_features: int | None
    in_features: int | None
    kernel: Shape | None
    rank: int = 1
    repeats: bool = False

    def fits(self, weight: Shape) -> bool:
        """Return whether it is an update of a weight of this shape."""
        if self.out_features is not None and self.out_features != weight[0]:
            return False
        if self.in_features is None:
            return True
        if len(weight) == 1:
            return False
        if self.repeats:
            return prod(weight[1:]) % self.in_features == 0
        if self.kernel is None:
            return self.in_features == prod(weight[1:])
        return (self.in_features, *self.kernel) == (weight[1], *(weight[2:] or (1, 1)))


def matrix(parts: Shapes, name: str) -> Shape:
    """Return the shape of a factor, which may have a kernel.

    Raises:
        PartsError: It is not there, or no matrix.
    """
    found = {str(part): shape for part, shape in parts.items()}.get(name)
    if found is None:
        raise PartsError(f"has no {name}; the file is incomplete")
    if len(found) not in (2, 4) or 0 in found or (name.endswith("_a") and prod(found[2:]) != 1):
        raise PartsError(f"has a {name} of shape {list(found)}; it has two sides, none of them 0")
    return found
