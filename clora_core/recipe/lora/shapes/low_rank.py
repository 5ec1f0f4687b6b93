"""Sizes of LoRA, LoHa and GLoRA, by the shapes of their factors."""

from clora_core.recipe.lora.shapes.size import PartsError, Shape, Shapes, UpdateSize, matrix


def lora_size(parts: Shapes) -> UpdateSize:
    """Return the size of a LoRA's update.

    Raises:
        PartsError: A part is missing or too many, or shapes don't go together.
    """
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


def loha_size(parts: Shapes) -> UpdateSize:
    """Return the size of a LoHa's update.

    Raises:
        PartsError: A part is missing or too many, or shapes don't go together.
    """
    halves = [_hada_half(parts, number) for number in (1, 2)]
    if halves[0][:3] != halves[1][:3]:
        raise PartsError(
            "has two halves of different sizes; both products have the size of the layer"
        )
    out_features, in_features, kernel, rank = halves[0]
    return UpdateSize(out_features, in_features, kernel, rank)


def _hada_half(parts: Shapes, number: int) -> tuple[int, int, Shape | None, int]:
    a, b = (matrix(parts, f"hada_w{number}_{half}") for half in "ab")
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


def glora_size(parts: Shapes) -> UpdateSize:
    """Return the size of a GLoRA's update.

    Raises:
        PartsError: A part is missing or too many, or shapes don't go together.
    """
    a1, a2, b1, b2 = (matrix(parts, name) for name in ("a1", "a2", "b1", "b2"))
    rank = a1[1]
    # Before 2024 they stood the other way around, which a square layer of whole rank alone hides.
    is_now = rank <= a1[0] and b1[1] == b2[0] == a2[0] == rank and a1[0] == a2[1] == b2[1]
    if not is_now or any(side != 1 for shape in (a1, a2, b1) for side in shape[2:]):
        raise PartsError(
            f"has a1, a2, b1 and b2 of shapes {list(a1)}, {list(a2)}, {list(b1)} and {list(b2)}, "
            "which LyCORIS writes otherwise since 2024"
        )
    return UpdateSize(b1[0], b2[1], b2[2:] or None, rank)
