"""A layer's update from the tensors of its file."""

from collections.abc import Mapping, Sequence
from math import isqrt, prod

import torch
from jaxtyping import Shaped
from torch import Tensor

from clora_core.lora.kinds.decomposed import Decomposed
from clora_core.lora.kinds.difference import Difference
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.kinds.generalized import Generalized
from clora_core.lora.kinds.hadamard import HadamardHalf, hadamard
from clora_core.lora.kinds.kronecker import Kronecker
from clora_core.lora.kinds.rotation import Rotation, cayley, cayley_series
from clora_core.lora.kinds.together import Together
from clora_core.lora.kinds.update import Update
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.parts import Part

Parts = Mapping[Part, Shaped[Tensor, "..."]]

_SETTINGS: tuple[Part, ...] = ("alpha", "scaled_oft")
"""Parts that multiply nothing."""


def read_update(layer: LoraLayer, parts: Parts, weight: Sequence[int], scale: float) -> Update:
    """Return the update that a layer's tensors are.

    Products of small tensors are made here, in single precision or better: Tucker's cores become
    part of the factor that they stand beside.

    Args:
        layer: Of the file.
        parts: Its tensors; floating-point numbers of 16 bits or more.
        weight: Shape of the weight in the base model.
        scale: Its strength.
    """
    update = _core(layer, parts, weight, scale)
    axis = layer.magnitude_axis(tuple(weight)) if layer.is_decomposed else None
    if axis is not None and update is not None:
        magnitude = parts["dora_scale"] if "dora_scale" in parts else parts["magnitude"]
        update = Decomposed(update, magnitude.flatten(), axis)
    bias = _bias(parts, scale)
    updates = [each for each in (update, bias) if each is not None]
    return updates[0] if len(updates) == 1 else Together(tuple(updates))


def _core(layer: LoraLayer, parts: Parts, weight: Sequence[int], scale: float) -> Update | None:
    match layer.kind:
        case "lora":
            return _lora(parts, weight, scale)
        case "loha":
            wide = _wide(parts)
            return hadamard(_half(wide, 1), _half(wide, 2), weight, scale)
        case "lokr":
            return _kronecker(layer, parts, weight, scale)
        case "glora":
            first, second = (parts[part].flatten(start_dim=1) for part in ("a1", "a2"))
            return Generalized(first, second, Factor(parts["b2"], parts["b1"], scale))
        case "difference":
            return Difference(parts["diff"], None) if "diff" in parts else None
        case "oft" | "boft":
            return _rotation(layer, parts, weight)


def _lora(parts: Parts, weight: Sequence[int], scale: float) -> Factor:
    down, up = parts["down"], parts["up"]
    if "mid" in parts:
        # [up's rank, down's rank, kernel] and [down's rank, in]
        wide = _wide(parts)
        down = torch.einsum("ijhw,jc->ichw", wide["mid"], wide["down"].flatten(start_dim=1))
    elif down.ndim == 2 and prod(weight[2:]) > 1:
        down, up = down.reshape(len(down), *weight[1:]), up[:, :, None, None]
    return Factor(down.contiguous(), up.contiguous(), scale)


def _half(parts: Parts, number: int) -> HadamardHalf:
    names: tuple[Part, Part, Part] = (
        ("hada_w1_a", "hada_w1_b", "hada_t1")
        if number == 1
        else ("hada_w2_a", "hada_w2_b", "hada_t2")
    )
    up, down, core = map(parts.get, names)
    assert up is not None and down is not None  # noqa: S101, PT018 - the grammar has seen both
    up, down = up.flatten(start_dim=1), down.flatten(start_dim=1)
    return HadamardHalf(up if core is None else up.mT, down, core)


def _kronecker(
    layer: LoraLayer, parts: Parts, weight: Sequence[int], scale: float
) -> Kronecker | Difference:
    wide = _wide(parts)
    w1 = parts.get("lokr_w1")
    if w1 is None:
        w1 = wide["lokr_w1_a"].flatten(start_dim=1) @ wide["lokr_w1_b"]
    w2 = parts.get("lokr_w2")
    if w2 is None:
        a, b = wide["lokr_w2_a"].flatten(start_dim=1), wide["lokr_w2_b"]
        core = wide.get("lokr_t2")
        if core is None:
            w2 = (a @ b.flatten(start_dim=1)).reshape(len(a), *b.shape[1:])
        else:
            w2 = torch.einsum("ijhw,ip,jr->prhw", core, a, b)
    if w2[0].numel() % prod(weight[2:]):
        # ComfyUI divides channels and kernel together, so that no product on channels is left.
        whole = torch.kron(*_wide({"lokr_w1": w1, "lokr_w2": w2}).values()) * scale
        return Difference(whole.reshape(tuple(weight)), None)
    rank = layer.rank if len({"lokr_w1", "lokr_w2"} & parts.keys()) < 2 else None
    return Kronecker(w1.contiguous(), w2.contiguous(), scale, rank)


def _rotation(layer: LoraLayer, parts: Parts, weight: Sequence[int]) -> Rotation:
    if "oft_R" in parts:
        return _packed_rotation(layer, parts, weight)
    if "boft_R" in parts:
        blocks = _wide(parts)["boft_R"]
        turned = cayley((blocks.mT - blocks) / 2)
        return Rotation(turned.mT, parts["boft_s"].flatten(), of_inputs=True)
    blocks = _wide(parts)["oft_blocks"]
    limit, rule = None, layer.limit_rule
    if rule is not None:
        limit = float(parts["alpha"]) * (1 if rule == "whole" else weight[0])
        limit = None if limit <= 0 and rule != "by output, 0 too" else limit
    gain = parts["rescale"].flatten() if "rescale" in parts else None
    turned = cayley(blocks - blocks.mT, limit)
    if layer.kind == "boft":
        return Rotation(turned, gain, is_butterfly=True)
    return Rotation(turned.mT[None].contiguous(), gain)


def _packed_rotation(layer: LoraLayer, parts: Parts, weight: Sequence[int]) -> Rotation:
    entries = _wide(parts)["oft_R"]
    side = (1 + isqrt(1 + 8 * entries.shape[1])) // 2
    if "scaled_oft" in parts and bool(parts["scaled_oft"]):
        entries = entries / (2 * (side - 1) ** 0.5)
    rows, columns = torch.triu_indices(side, side, 1)
    upper = entries.new_zeros(len(entries), side, side)
    upper[:, rows, columns] = entries
    skew = upper - upper.mT
    terms, limit = layer.cayley.terms, layer.cayley.block_limit
    if limit is not None:
        lengths = torch.linalg.vector_norm(skew, dim=(1, 2), keepdim=True)
        longest = limit / len(skew) ** 0.5
        skew = skew * torch.where(lengths > longest, longest / lengths, 1.0)
    turned = cayley(-skew) if terms is None else cayley_series(skew, terms)
    if layer.size.repeats:
        turned = turned.repeat(prod(weight[1:]) // side, 1, 1)
    # OneTrainer turns a convolution's patches the other way than a linear layer's inputs.
    is_backwards = len(weight) > 2 and not layer.is_of_peft
    return Rotation((turned if is_backwards else turned.mT)[None].contiguous(), of_inputs=True)


def _bias(parts: Parts, scale: float) -> Difference | None:
    if "diff_b" in parts:
        return Difference(None, parts["diff_b"])
    # peft's is added where the up factor's product is, before that is scaled.
    return Difference(None, _wide(parts)["bias"] * scale) if "bias" in parts else None


def _wide(parts: Parts) -> Parts:
    """Return tensors in one precision, single or better, so that they can be multiplied."""
    dtype = torch.float32
    for part, tensor in parts.items():
        dtype = dtype if part in _SETTINGS else torch.promote_types(dtype, tensor.dtype)
    return {part: tensor.to(dtype) for part, tensor in parts.items()}
