"""The kinds of update that adapters make to a layer: which tensors each has, and their shapes.

    lora        up @ down, also with a kernel (LoCon) and with Tucker's core between them (mid)
    loha        (w1_a @ w1_b) * (w2_a @ w2_b), entry by entry (LyCORIS, arXiv 2108.06098)
    lokr        the Kronecker product of w1 and w2, each whole or factored (LyCORIS)
    glora       W (a1 @ a2) + b1 @ b2, with the base weight W (arXiv 2306.07967, LyCORIS)
    difference  the whole difference: of a weight, of a bias, or of a norm's scale and shift
    oft         a rotation in blocks (arXiv 2306.07280): of the outputs (LyCORIS, kohya), or of the
                inputs (oft_R: peft, OneTrainer)
    boft        a product of such rotations in a butterfly (arXiv 2311.06243): of the outputs
                (LyCORIS), or, with a single step, of the inputs (boft_R: peft)

The first three may be weight-decomposed (DoRA, arXiv 2402.09353), and a trained bias may come
with any of them. Here are names and shapes alone; what they do is in ``clora_core.lora.kinds``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod
from typing import Literal

from clora_core.recipe.lora.parts import Part

Kind = Literal["lora", "loha", "lokr", "glora", "difference", "oft", "boft"]
Shape = tuple[int, ...]
Shapes = Mapping[Part, Shape]

_BESIDE: frozenset[Part] = frozenset({"alpha", "dora_scale", "magnitude", "bias", "diff_b"})
"""Parts that come with an update of another kind."""
_BIASES: tuple[Part, ...] = ("bias", "diff_b")
_OF_ROTATIONS: frozenset[Part] = frozenset({"rescale", "scaled_oft", "boft_s"})
_ROTATIONS: Mapping[Part, frozenset[Part]] = {
    "oft_R": frozenset({"oft_R", "scaled_oft"}),
    "boft_R": frozenset({"boft_R", "boft_s"}),
    "oft_blocks": frozenset({"oft_blocks", "rescale", "alpha"}),
}
"""By the blocks of a rotation all that it may have, beside a bias."""

_DECOMPOSABLE: frozenset[Kind] = frozenset({"lora", "loha", "lokr"})


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


@dataclass(frozen=True, slots=True)
class Cayley:
    """How peft makes a rotation of a packed block, which the tensors do not say.

    Attributes:
        terms: Of the series that stands for Cayley's transform; None for the transform itself.
        block_limit: Norm to which each block is shortened, times the root of their number; None
            for no limit.
    """

    terms: int | None = 5
    block_limit: float | None = None


PLAIN_CAYLEY = Cayley()
"""As OneTrainer makes every rotation, and peft unless it is asked otherwise."""


def kind_of(parts: Shapes) -> Kind:
    """Return the kind of update that a layer's parts make.

    Raises:
        PartsError: They are of several kinds, or of none.
    """
    found: set[Kind | None] = {
        _kind(part, parts[part]) for part in parts if part not in _BESIDE | _OF_ROTATIONS
    }
    found.discard(None)
    if len(found) > 1:
        raise PartsError(f"has parts of several kinds ({', '.join(sorted(map(str, found)))})")
    if not found:
        if "diff_b" in parts:
            return "difference"
        have = ", ".join(sorted(parts))
        raise PartsError(f"has {have} but no weights; the file is incomplete")
    (kind,) = found
    if kind is None:
        raise PartsError("has parts of no kind")
    return kind


def update_size(kind: Kind, parts: Shapes) -> UpdateSize:
    """Return the size of a layer's update.

    Raises:
        PartsError: A part is missing or too many, or shapes don't go together.
    """
    size = {
        "lora": _lora,
        "loha": _loha,
        "lokr": _lokr,
        "glora": _glora,
        "difference": _difference,
        "oft": _rotation,
        "boft": _rotation,
    }[kind](parts)
    _check_beside(kind, parts, size)
    return size


def _kind(part: Part, shape: Shape) -> Kind | None:
    if part in ("down", "up", "mid"):
        return "lora"
    if part.startswith("hada"):
        return "loha"
    if part.startswith("lokr"):
        return "lokr"
    if part in ("a1", "a2", "b1", "b2"):
        return "glora"
    if part == "diff":
        return "difference"
    if part == "oft_blocks":
        return "boft" if len(shape) == 4 else "oft"
    if part == "oft_R":
        return "oft"
    return "boft" if part == "boft_R" else None


def _lora(parts: Shapes) -> UpdateSize:
    for part, other in (("down", "up"), ("up", "down")):
        if part not in parts:
            have = other if other in parts else "mid"
            raise PartsError(f"has {have} but no {part} weights; the file is incomplete")
    down, up = parts["down"], parts["up"]
    if len(down) not in (2, 4) or len(down) != len(up) or 0 in down or 0 in up:
        raise PartsError(
            f"has shapes {list(down)} and {list(up)}; both have two dimensions (linear) or four "
            "(convolution), none of them 0"
        )
    if up[2:] not in ((), (1, 1)):
        raise PartsError(f"has up weights of shape {list(up)}; the kernel must be 1x1")
    # ComfyUI writes a convolution's factor flattened, too.
    rank, kernel = down[0], down[2:] or None
    if "mid" in parts:
        mid = parts["mid"]
        if len(mid) != 4 or mid[:2] != (up[1], rank) or kernel not in (None, (1, 1)) or 0 in mid:
            raise PartsError(
                f"has mid weights of shape {list(mid)} between {list(down)} and {list(up)}; "
                "Tucker's core has the ranks of both and alone a kernel"
            )
        kernel = mid[2:]
    elif rank != up[1]:
        raise PartsError(
            f"has rank {rank} in its down and {up[1]} in its up weights; they must agree"
        )
    return UpdateSize(up[0], down[1], kernel, rank)


def _loha(parts: Shapes) -> UpdateSize:
    halves = [_hada_half(parts, number) for number in (1, 2)]
    if halves[0][:3] != halves[1][:3]:
        raise PartsError(
            "has two halves of different sizes; both products have the size of the layer"
        )
    out_features, in_features, kernel, rank = halves[0]
    return UpdateSize(out_features, in_features, kernel, rank)


def _hada_half(parts: Shapes, number: int) -> tuple[int, int, Shape | None, int]:
    a, b = (_matrix(parts, f"hada_w{number}_{half}") for half in "ab")
    core = parts.get("hada_t1" if number == 1 else "hada_t2")
    if core is None:
        if a[1] != b[0]:
            raise PartsError(f"has rank {a[1]} in hada_w{number}_a and {b[0]} in hada_w{number}_b")
        return (a[0], b[1], b[2:] or None, b[0])
    if len(core) != 4 or core[:2] != (a[0], b[0]) or 0 in core or len(a) + len(b) != 4:
        raise PartsError(
            f"has a hada_t{number} of shape {list(core)} for factors of {list(a)} and {list(b)}"
        )
    return a[1], b[1], core[2:], b[0]


def _lokr(parts: Shapes) -> UpdateSize:
    first, first_rank = _kronecker_half(parts, 1)
    second, second_rank = _kronecker_half(parts, 2)
    if first_rank and second_rank and first_rank != second_rank:
        raise PartsError(
            f"has rank {first_rank} in its first factor and {second_rank} in its second; an alpha "
            "is divided by one rank"
        )
    out_features, in_features = first[0] * second[0], first[1] * second[1]
    kernel = second[2:] or None
    return UpdateSize(out_features, in_features, kernel, first_rank or second_rank or 1)


def _kronecker_half(parts: Shapes, number: int) -> tuple[Shape, int | None]:
    """Return the shape of a Kronecker product's half, and its rank if it is factored."""
    name: Part = "lokr_w1" if number == 1 else "lokr_w2"
    whole = parts.get(name)
    factors = [part for part in parts if part.startswith((f"{name}_", f"lokr_t{number}"))]
    if whole is not None:
        if factors:
            raise PartsError(f"has {name} both whole and factored ({', '.join(sorted(factors))})")
        if len(whole) not in (2, 4) or (number == 1 and len(whole) != 2) or 0 in whole:
            raise PartsError(f"has a {name} of shape {list(whole)}")
        return whole, None
    a = _matrix(parts, f"{name}_a")
    b = parts.get("lokr_w1_b" if number == 1 else "lokr_w2_b")
    if b is None or len(b) not in (2, 4) or (number == 1 and len(b) != 2) or 0 in b:
        raise PartsError(
            f"has {name}_a and {'no' if b is None else f'a wrong ({list(b)})'} {name}_b"
        )
    core = parts.get("lokr_t2") if number == 2 else None
    if core is not None:
        if len(core) != 4 or len(b) != 2 or core[:2] != (a[0], b[0]) or 0 in core:
            raise PartsError(
                f"has a lokr_t2 of shape {list(core)} for factors of {list(a)} and {list(b)}"
            )
        return (a[1], b[1], *core[2:]), b[0]
    if a[1] != b[0]:
        raise PartsError(f"has rank {a[1]} in {name}_a and {b[0]} in {name}_b")
    return (a[0], *b[1:]), b[0]


def _glora(parts: Shapes) -> UpdateSize:
    a1, a2, b1, b2 = (_matrix(parts, name) for name in ("a1", "a2", "b1", "b2"))
    rank = a1[1]
    # Before 2024 they stood the other way around, which a square layer of whole rank alone hides.
    is_now = rank <= a1[0] and b1[1] == b2[0] == a2[0] == rank and a1[0] == a2[1] == b2[1]
    if not is_now or any(side != 1 for shape in (a1, a2, b1) for side in shape[2:]):
        raise PartsError(
            f"has a1, a2, b1 and b2 of shapes {list(a1)}, {list(a2)}, {list(b1)} and {list(b2)}, "
            "which LyCORIS writes otherwise since 2024"
        )
    return UpdateSize(b1[0], b2[1], b2[2:] or None, rank)


def _difference(parts: Shapes) -> UpdateSize:
    whole, bias = parts.get("diff"), parts.get("diff_b")
    if whole is None:
        if bias is None:
            raise PartsError("has neither a weight's difference nor a bias's")
        return UpdateSize(bias[0] if len(bias) == 1 else -1, None, None)
    if len(whole) not in (1, 2, 4) or 0 in whole:
        raise PartsError(f"has a difference of shape {list(whole)}; a weight has 1, 2 or 4 sides")
    if len(whole) == 1:
        return UpdateSize(whole[0], None, None)
    return UpdateSize(whole[0], whole[1], whole[2:] or (1, 1))


def _rotation(parts: Shapes) -> UpdateSize:
    name: Part = next(part for part in _ROTATIONS if part in parts)
    stray = parts.keys() - _ROTATIONS[name] - set(_BIASES)
    if stray:
        raise PartsError(f"has {', '.join(sorted(stray))} beside {name}, which is not known")
    if name == "oft_R":
        return _packed_rotation(parts)
    blocks = parts[name]
    if len(blocks) not in (3, 4) or blocks[-1] != blocks[-2] or 0 in blocks:
        raise PartsError(f"has {name} of shape {list(blocks)}; blocks are square")
    num_rotated = blocks[-3] * blocks[-1]
    if name == "boft_R":
        gain = parts.get("boft_s")
        if len(blocks) != 4 or gain is None or len(gain) != 2 or 1 not in gain:
            raise PartsError("has a boft_R without four sides, or without its boft_s")
        if blocks[0] != 1:
            raise PartsError(
                f"has {blocks[0]} butterfly steps of peft's, whose order is not in the file"
            )
        return UpdateSize(prod(gain), num_rotated, None)
    if len(blocks) == 4 and (blocks[-1] % 2 or blocks[0] > 32 or blocks[1] % 2 ** (blocks[0] - 1)):
        raise PartsError(f"has oft_blocks of shape {list(blocks)}, which no butterfly has")
    rescale = parts.get("rescale")
    if rescale is not None and (rescale[:1] != (num_rotated,) or prod(rescale) != num_rotated):
        raise PartsError(f"has a rescale of shape {list(rescale)} for {num_rotated} outputs")
    return UpdateSize(num_rotated, None, None)


def _packed_rotation(parts: Shapes) -> UpdateSize:
    blocks = parts["oft_R"]
    side = _block_side(blocks[1]) if len(blocks) == 2 and 0 not in blocks else None
    if side is None:
        raise PartsError(
            f"has an oft_R of shape {list(blocks)}; each row is the upper half of a square block"
        )
    return UpdateSize(None, blocks[0] * side, None, repeats=blocks[0] == 1)


def _block_side(num_entries: int) -> int | None:
    """Return the side of a square whose strict upper half has this many entries."""
    side = (1 + isqrt(1 + 8 * num_entries)) // 2
    return side if side * (side - 1) // 2 == num_entries else None


def _matrix(parts: Shapes, name: str) -> Shape:
    found = {str(part): shape for part, shape in parts.items()}.get(name)
    if found is None:
        raise PartsError(f"has no {name}; the file is incomplete")
    if len(found) not in (2, 4) or 0 in found or (name.endswith("_a") and prod(found[2:]) != 1):
        raise PartsError(f"has a {name} of shape {list(found)}; it has two sides, none of them 0")
    return found


def _check_beside(kind: Kind, parts: Shapes, size: UpdateSize) -> None:
    alpha = parts.get("alpha")
    if alpha is not None and alpha not in ((), (1,)):
        raise PartsError(f"has an alpha of shape {list(alpha)}; it must be one number")
    stray = _OF_ROTATIONS & parts.keys() if kind not in ("oft", "boft") else ()
    if stray:
        raise PartsError(f"has {', '.join(sorted(stray))}, which no {kind} has")
    magnitudes = [part for part in ("dora_scale", "magnitude") if part in parts]
    if magnitudes and kind not in _DECOMPOSABLE:
        raise PartsError(f"has {magnitudes[0]} and no update of low rank that it could rescale")
    if len(magnitudes) > 1:
        raise PartsError("has dora_scale and lora_magnitude_vector; a weight has one magnitude")
    if "bias" in parts and kind != "lora":
        raise PartsError(f"has the bias of a LoRA's factor, which no {kind} has")
    biases: list[Part] = [part for part in _BIASES if part in parts]
    if len(biases) > 1:
        raise PartsError("has two trained biases")
    for part in biases:
        shape = parts[part]
        if len(shape) != 1 or (size.out_features is not None and shape[0] != size.out_features):
            raise PartsError(f"has a trained bias of shape {list(shape)}")
