"""What kinds of adapter a file holds, in the words that people use for them."""

from collections import Counter
from collections.abc import Sequence
from math import prod

from clora_core.recipe.lora.layers import LoraLayer

_NAMES = {"loha": "LoHa", "lokr": "LoKr", "glora": "GLoRA", "oft": "OFT", "boft": "BOFT"}


def adapter_kinds(layers: Sequence[LoraLayer]) -> tuple[str, ...]:
    """Return the kinds of a file's layers, those of most layers first."""
    counts = Counter(name for layer in layers for name in _kinds(layer))
    if "LoCon" in counts:
        # A LoCon is a LoRA with convolutions; nobody calls its linear layers something else.
        del counts["LoRA"]
    return tuple(sorted(counts, key=lambda name: (-counts[name], name)))


def _kinds(layer: LoraLayer) -> list[str]:
    found: list[str] = []
    if layer.kind == "difference":
        whole = layer.shapes.get("diff")
        if whole is not None:
            found.append("trained norms" if len(whole) == 1 else "full differences")
        if layer.changes_bias:
            found.append("trained biases")
        return found
    if layer.is_decomposed:
        found.append("DoRA" if layer.kind == "lora" else f"DoRA of {_NAMES[layer.kind]}")
    elif layer.kind == "lora":
        has_kernel = prod(layer.size.kernel or ()) > 1
        found.append(
            "Tucker LoCon" if "mid" in layer.tensors else "LoCon" if has_kernel else "LoRA"
        )
    else:
        found.append(_NAMES[layer.kind])
    if layer.changes_bias:
        found.append("trained biases")
    return found
