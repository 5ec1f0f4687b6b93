"""What an adapter's layer becomes when it is read: two factors or more, and how much memory.

The reader makes products of small tensors once, in single precision or better, and keeps all other
tensors in the numbers of their file, those of 8 bits in 16.
"""

from collections.abc import Callable
from math import prod

from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.parts import Part

_SINGLE_BYTES = 4
_KEPT: tuple[Part, ...] = ("dora_scale", "magnitude", "rescale", "boft_s", "diff", "diff_b")
_AS_THEY_ARE: frozenset[Part] = frozenset({"alpha", *_KEPT})
_HALVES: tuple[tuple[Part, Part], ...] = (("hada_w1_a", "hada_t1"), ("hada_w2_a", "hada_t2"))


def factors_are_smaller(rank: int, num_inputs: int, num_outputs: int) -> bool:
    """Return whether two factors of this rank are smaller than the whole difference of a weight."""
    return rank * (num_inputs + num_outputs) < num_inputs * num_outputs


def is_product(layer: LoraLayer) -> bool:
    """Return whether all that a layer's update adds is a product of two factors."""
    if layer.is_decomposed or layer.changes_bias:
        return False
    return layer.kind == "lora" or (layer.kind == "loha" and not is_dense(layer))


def is_dense(layer: LoraLayer) -> bool:
    """Return whether a small update becomes the whole difference of a weight in every batch."""
    if layer.kind != "loha":
        return False
    num_outputs, num_inputs = _sides(layer)
    return not factors_are_smaller(_loha_rank(layer), num_inputs, num_outputs)


def held_bytes(layer: LoraLayer, item_bytes: Callable[[Part], int]) -> int:
    """Return the memory of a layer's update while a run holds it.

    What depends on the base model alone (blocks that are shared by all inputs, a Kronecker product
    that ComfyUI has cut across a kernel) is taken as the file has it.

    Args:
        layer: Of the file.
        item_bytes: Returns the bytes of one number of a part, as it is kept.
    """

    def size(part: Part) -> int:
        return prod(layer.shapes[part]) * item_bytes(part) if part in layer.shapes else 0

    multiplied = layer.shapes.keys() - _AS_THEY_ARE
    single = max([_SINGLE_BYTES, *map(item_bytes, multiplied)])
    beside = sum(map(size, _KEPT)) + prod(layer.shapes.get("bias", (0,))) * single
    num_outputs, num_inputs = _sides(layer)
    match layer.kind:
        case "difference":
            return beside
        case "lora":
            if "mid" not in layer.shapes:
                return size("down") + size("up") + beside
            return layer.shapes["mid"][0] * num_inputs * single + size("up") + beside
        case "glora":
            return size("a1") + size("a2") + size("b1") + size("b2") + beside
        case "loha":
            factors = (num_inputs + num_outputs) * _loha_rank(layer)
            halves = sum(prod(layer.shapes[p]) for p in multiplied if p.startswith("hada"))
            count = halves if is_dense(layer) else factors
            return count * single + beside
        case "lokr":
            return _kronecker_bytes(layer, size, single) + beside
        case "oft" | "boft":
            packed = layer.shapes.get("oft_R")
            blocks = layer.shapes.get("oft_blocks", layer.shapes.get("boft_R", ()))
            if packed is not None:
                side = (layer.size.in_features or 0) // packed[0]
                return packed[0] * side * side * single + beside
            return prod(blocks) * single + beside


def _sides(layer: LoraLayer) -> tuple[int, int]:
    size = layer.size
    return size.out_features or 0, (size.in_features or 0) * prod(size.kernel or ())


def _loha_rank(layer: LoraLayer) -> int:
    shapes = layer.shapes
    first, second = (shapes[up][0] if core in shapes else shapes[up][1] for up, core in _HALVES)
    return first * second


def _kronecker_bytes(layer: LoraLayer, size: Callable[[Part], int], single: int) -> int:
    first, second = factor_shapes(layer)
    whole = [size("lokr_w1"), size("lokr_w2")]
    return sum(
        kept or prod(shape) * single for kept, shape in zip(whole, (first, second), strict=True)
    )


def factor_shapes(layer: LoraLayer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of both factors of a Kronecker product."""
    shapes, size = layer.shapes, layer.size
    first = shapes.get("lokr_w1") or (shapes["lokr_w1_a"][0], shapes["lokr_w1_b"][1])
    sides = (size.out_features or 0) // first[0], (size.in_features or 0) // first[1]
    return first, (*sides, *(size.kernel or ()))
