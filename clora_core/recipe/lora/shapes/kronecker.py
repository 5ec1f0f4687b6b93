"""Sizes of LoKr, by the shapes of its two factors, each whole or factored."""

from clora_core.recipe.lora.parts import Part
from clora_core.recipe.lora.shapes.size import PartsError, Shape, Shapes, UpdateSize, matrix


def lokr_size(parts: Shapes) -> UpdateSize:
    """Return the size of a LoKr's update.

    Raises:
        PartsError: A part is missing or too many, or shapes don't go together.
    """
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
    a = matrix(parts, f"{name}_a")
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
