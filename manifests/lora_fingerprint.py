"""Whether two files are the same LoRA, though different tools wrote them.

The digest that keys and caches use is of the tensors as they are named, so that it can never call
two different files one. The fingerprint here looks through the names: the same layers, factors (bit
for bit) and scales give the same fingerprint in every format. It is shown, and nothing hangs on it.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from manifests.lora_layers import LoraLayer, tensor_part
from manifests.lora_names import plain_layer_name
from manifests.safetensors_header import Header

__all__ = ["lora_fingerprint"]

CHUNK_BYTES = 8 * 1024**2


def lora_fingerprint(
    path: Path, header: Header, layers: Sequence[LoraLayer], scales: Mapping[str, float]
) -> str:
    """Return the sha256 (hex) over layer, scale and factors of every layer, sorted by layer.

    Args:
        path: The file.
        header: Of that file.
        layers: Of that file, from ``lora_layers``.
        scales: By layer name, from ``lora_scales``.

    Raises:
        OSError: The file cannot be read.
    """
    factors: dict[str, dict[str, str]] = {}
    with path.open("rb") as file:
        for name, entry in header.tensors.items():
            found = tensor_part(name)
            if found is None or found[2] == "alpha":
                continue
            file.seek(header.data_start + entry.start)
            digest = hashlib.sha256(entry.dtype.encode())
            left = entry.end - entry.start
            while left > 0 and (chunk := file.read(min(left, CHUNK_BYTES))):
                digest.update(chunk)
                left -= len(chunk)
            factors.setdefault(found[0], {})[found[2]] = digest.hexdigest()
    lines = sorted(
        "\0".join(
            (
                plain_layer_name(layer.name),
                repr(float(scales[layer.name])),
                # A 1x1 convolution and a linear layer hold the same numbers.
                f"{layer.rank} {layer.in_features} {layer.out_features} {layer.kernel or (1, 1)}",
                factors[layer.name]["down"],
                factors[layer.name]["up"],
            )
        )
        for layer in layers
    )
    if any(math.isnan(scale) for scale in scales.values()):
        lines.append(header.metadata.get("lora_adapter_metadata", ""))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
