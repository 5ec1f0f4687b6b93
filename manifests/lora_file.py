"""A LoRA file, looked at before any model library sees it.

Model libraries load wrong files with a warning or not at all with a page of keys. So the file is
read here first: header, names, shapes, hashes and values, and what is wrong is one sentence.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from manifests.digests import tensor_hashes
from manifests.lora_family import cross_attention_width, cross_attention_widths, model_family
from manifests.lora_layers import FileFormat, LoraLayer, file_format, lora_layers
from manifests.lora_scales import metadata_strengths
from manifests.safetensors_header import LoraFileProblem, read_header

__all__ = ["LoraFileInfo", "LoraFileProblem", "inspect_lora_file"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraFileInfo:
    """What a usable LoRA file holds.

    Attributes:
        digest: Identity: sha256 (hex) of its tensors, and of the strengths that its metadata
            change; whatever else the metadata say.
        file_sha256: sha256 (hex) of the file; its first 10 digits are Civitai's AutoV2.
        data_sha256: sha256 (hex) of the data section; its first 12 digits are AutoV3 and what
            A1111 writes as "Lora hashes".
        format: How the tensors are named.
        family: Family of base models it was made for; ``unknown`` is no fault.
        cross_attention_width: Width of the text embedding it reads; None without such layers.
        rank: The largest rank of its layers.
        has_unet: It adapts the image model.
        has_text_encoder: It adapts a text encoder.
        layers: What it changes, sorted by name.
        metadata: What its maker wrote; shown, never trusted.
    """

    digest: str
    file_sha256: str
    data_sha256: str
    format: FileFormat
    family: str
    cross_attention_width: int | None
    rank: int
    has_unet: bool
    has_text_encoder: bool
    layers: tuple[LoraLayer, ...]
    metadata: Mapping[str, str]

    @property
    def num_layers(self) -> int:
        """Adapted layers."""
        return len(self.layers)


def inspect_lora_file(path: str | Path) -> LoraFileInfo:
    """Return what the LoRA file ``path`` holds.

    Raises:
        LoraFileProblem: It cannot be used; the sentence names the file, the reason, the way out.
    """
    path = Path(path)
    header = read_header(path)
    kind = file_format(path, header.tensors)
    layers = lora_layers(path, header.tensors)
    widths = cross_attention_widths(layers)
    if len(widths) > 1:
        raise LoraFileProblem(
            f"{path} reads text embeddings of widths {' and '.join(map(str, widths))}, and every "
            "base model has one; it was put together from LoRAs of two families: save one alone"
        )
    try:
        strengths = metadata_strengths(path, header, layers)
        identity, whole, data = tensor_hashes(path, header, strengths=strengths)
    except OSError as error:
        raise LoraFileProblem(f"{path} cannot be read: {error.strerror or error}") from error
    return LoraFileInfo(
        digest=identity,
        file_sha256=whole,
        data_sha256=data,
        format=kind,
        family=model_family(layers),
        cross_attention_width=cross_attention_width(layers),
        rank=max(layer.rank for layer in layers),
        has_unet=any(not layer.in_text_encoder for layer in layers),
        has_text_encoder=any(layer.in_text_encoder for layer in layers),
        layers=layers,
        metadata=header.metadata,
    )
