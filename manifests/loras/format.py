"""Which format a LoRA file is written in, by the names of its tensors.

Other kinds of adapter are refused by their own name, with what would work instead.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.layers import ACCEPTED, tensor_names
from clora_core.recipe.lora.names import COMFYUI_PREFIX, has_component
from clora_core.recipe.lora.parts import Writer
from manifests.loras.other_adapters import other_kind
from manifests.weights.header import TensorEntry

FileFormat = Literal["kohya", "diffusers", "peft", "peft without prefix", "comfyui", "embedding"]


def file_format(path: Path, tensors: Mapping[str, TensorEntry]) -> FileFormat:
    """Return how the file names its tensors.

    Raises:
        LoraFileError: Another kind of adapter, a full checkpoint, a name that none of the formats
            has, or no weights.
    """
    refuse_other_kind(path, tensors)
    names = tensor_names(path, tensors)
    writers: Counter[Writer] = Counter(
        meaning.writer for meaning in names.values() if meaning.writer is not None
    )
    if all(meaning.part == "alpha" for meaning in names.values()):
        raise LoraFileError(f"{path} holds scaling factors (alpha) and no weights")
    # diffusers' scripts write two of them into one file.
    if not writers:  # all tools name whole differences alike; the layers' prefix differs
        is_of_comfyui = any(name.startswith(COMFYUI_PREFIX) for name in names)
        writers["comfyui" if is_of_comfyui else "peft"] = 1
    ((writer, _),) = writers.most_common(1)
    if writer == "peft" and not all(has_component(meaning.layer) for meaning in names.values()):
        return "peft without prefix"
    return writer


def refuse_other_kind(path: Path, tensors: Mapping[str, TensorEntry]) -> None:
    """Refuse another kind of adapter by its own name.

    Raises:
        LoraFileError: As it says.
    """
    other = other_kind(tensors)
    if other is not None:
        sentence, hits = other
        raise LoraFileError(
            f"{path} {sentence} ({hits} of {len(tensors)} tensors say so; {ACCEPTED})"
        )
