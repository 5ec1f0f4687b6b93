"""Whether two files are the same LoRA, though different tools wrote them.

The digest that keys and caches use is of the tensors as they are named, so that it can never call
two different files one. The fingerprint here looks through the names: the same layers, factors (bit
for bit), scales and vectors of embeddings give the same fingerprint in every format. It is compared
among the files that are inspected together, and nothing else hangs on it.
"""

import hashlib
import json
import math
from collections.abc import Mapping

from clora_core.recipe.lora.layers import LoraLayer
from manifests.loras.file import LoraContent


def lora_fingerprint(content: LoraContent, scales: Mapping[str, float]) -> str:
    """Return the sha256 (hex) over layer, scale and factors of every layer, sorted by layer.

    Args:
        content: Of the file.
        scales: By layer name, from ``lora_scales``.
    """

    def line(layer: LoraLayer) -> str:
        strengths = (layer.alpha, layer.idle_alpha)  # in the scale, or in nothing
        parts = sorted(item for item in layer.tensors.items() if item[1] not in strengths)
        tensors = [
            f"{part} {content.header.tensors[name].dtype} {content.hashes.tensors[name]}"
            for part, name in parts
        ]
        # A 1x1 convolution and a linear layer hold the same numbers.
        size = layer.size
        kernel = size.kernel or (1, 1)
        shape = f"{layer.kind} {size.rank} {size.in_features} {size.out_features} {kernel}"
        shape += layer.rotation_rule
        return "\0".join((layer.flat_name, repr(scales[layer.name]), shape, *tensors))

    lines = sorted(map(line, content.layers)) + sorted(
        f"{component}\0{content.header.tensors[name].dtype} {content.hashes.tensors[name]}"
        for each in content.info.embeddings
        for component, name in each.tensors.items()
    )
    if any(map(math.isnan, scales.values())):
        if content.config is None:
            lines.append(content.header.metadata.get("lora_adapter_metadata", ""))
        else:
            lines.append(json.dumps(content.settings, sort_keys=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
