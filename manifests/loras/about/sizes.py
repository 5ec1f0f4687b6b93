"""How large an adapter's updates are, in the words of each kind, and what they take in memory."""

import math
from collections.abc import Callable, Iterable, Sequence

from clora_core.recipe.lora.embeddings import Embedding
from clora_core.recipe.lora.held import factor_shapes, held_bytes, is_dense
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.parts import Part
from manifests.weights.header import DTYPE_BYTES, Header

MAX_LISTED = 4


def size_lines(layers: Sequence[LoraLayer]) -> tuple[tuple[str, str], ...]:
    """Return (word, text) of each sort of size beside ranks that a file's layers have."""
    found: list[tuple[str, str]] = []
    pairs = {factor_shapes(layer) for layer in layers if layer.kind == "lokr"}
    if pairs:
        texts = [f"{_by(first)} times {_by(second)}" for first, second in sorted(pairs)]
        found.append(("factors", _first_and_last(texts)))
    found += _rotations(layers)
    whole = sum(layer.kind == "difference" and layer.changes_weight for layer in layers)
    if whole:
        found.append(("whole", f"differences of {whole:,} weights, without a rank"))
    biases = sum(layer.changes_bias for layer in layers)
    if biases:
        found.append(("biases", f"of {biases:,} layers"))
    return tuple(found)


def memory_text(
    header: Header, layers: Sequence[LoraLayer], embeddings: Sequence[Embedding]
) -> str:
    """Return what the adapter takes in a run's cache.

    Args:
        header: Of the file.
        layers: Of the file.
        embeddings: Of the file.
    """
    total = sum(held_bytes(layer, item_bytes(header, layer)) for layer in layers)
    total += sum(
        header.tensors[name].end - header.tensors[name].start
        for each in embeddings
        for name in each.tensors.values()
    )
    dense = sum(map(is_dense, layers))
    more = f", in a batch {dense:,} LoHa layers as whole differences" if dense else ""
    return f"{_size(total)} in a run's cache{more}"


def item_bytes(header: Header, layer: LoraLayer) -> Callable[[Part], int]:
    """Return what gives the bytes of one number of a layer's part; 8 bits are kept in 16."""
    return lambda part: max(2, DTYPE_BYTES[header.tensors[layer.tensors[part]].dtype])


def _rotations(layers: Sequence[LoraLayer]) -> list[tuple[str, str]]:
    sides: dict[str, set[int]] = {}
    steps: dict[str, set[int]] = {}
    for layer in layers:
        if layer.kind not in ("oft", "boft"):
            continue
        blocks = layer.shapes.get("oft_blocks", layer.shapes.get("boft_R"))
        if blocks is None:
            side = (layer.size.in_features or 0) // layer.shapes["oft_R"][0]
            turned = "inputs turned by one block for all" if layer.size.repeats else "inputs turned"
        else:
            side = blocks[-1]
            turned = "inputs turned" if "boft_R" in layer.shapes else "outputs turned"
        sides.setdefault(turned, set()).add(side)
        if layer.kind == "boft" and blocks is not None:
            steps.setdefault(turned, set()).add(blocks[0])
    return [
        (
            "blocks",
            f"of {listed(sorted(found))} channels, {turned}"
            + (f" in {listed(sorted(steps[turned]))} steps" if turned in steps else ""),
        )
        for turned, found in sorted(sides.items())
    ]


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _first_and_last(texts: Sequence[str]) -> str:
    if len(texts) <= MAX_LISTED:
        return ", ".join(texts)
    return f"{texts[0]} to {texts[-1]} ({len(texts)} different)"


def listed(values: Sequence[float]) -> str:
    """Return numbers as text, of many the first and the last; NaN is what patterns decide."""
    return _first_and_last(
        ["by pattern" if math.isnan(value) else f"{value:g}" for value in values]
    )


def ascending(values: Iterable[float]) -> tuple[float, ...]:
    """Return each value once, in order; NaN, which stands for what is open, comes last."""
    listed = list(values)
    numbers = sorted({value for value in listed if not math.isnan(value)})
    return (*numbers, *([math.nan] if any(map(math.isnan, listed)) else []))


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:,.1f} kB"
