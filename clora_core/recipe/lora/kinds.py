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

from dataclasses import dataclass
from typing import Literal

from clora_core.recipe.lora.parts import Part
from clora_core.recipe.lora.shapes.kronecker import lokr_size
from clora_core.recipe.lora.shapes.low_rank import glora_size, loha_size, lora_size
from clora_core.recipe.lora.shapes.rotations import rotation_size
from clora_core.recipe.lora.shapes.size import PartsError, Shape, Shapes, UpdateSize

Kind = Literal["lora", "loha", "lokr", "glora", "difference", "oft", "boft"]

_BESIDE: frozenset[Part] = frozenset({"alpha", "dora_scale", "magnitude", "bias", "diff_b"})
"""Parts that come with an update of another kind."""
_BIASES: tuple[Part, ...] = ("bias", "diff_b")
_OF_ROTATIONS: frozenset[Part] = frozenset({"rescale", "scaled_oft", "boft_s"})
_DECOMPOSABLE: frozenset[Kind] = frozenset({"lora", "loha", "lokr"})


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
        "lora": lora_size,
        "loha": loha_size,
        "lokr": lokr_size,
        "glora": glora_size,
        "difference": _difference,
        "oft": rotation_size,
        "boft": rotation_size,
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
