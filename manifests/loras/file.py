"""A LoRA file, looked at before any model library sees it.

Model libraries load wrong files with a warning or not at all with a page of keys. So the file is
read here first: header, names, shapes, hashes and values, and what is wrong is one sentence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.adapter_config import AdapterConfig
from clora_core.recipe.lora.embeddings import Embedding, file_parts
from clora_core.recipe.lora.held import is_product
from clora_core.recipe.lora.layers import LoraLayer
from clora_core.recipe.lora.misplaced import misplaced
from clora_core.recipe.lora.numbers import refuse_other_numbers
from clora_core.recipe.lora.peft_folder import DescribedLora, described_lora
from manifests.loras.embeddings import embedding_family
from manifests.loras.family import cross_attention_widths, model_family
from manifests.loras.format import FileFormat, file_format, refuse_other_kind
from manifests.loras.kinds import adapter_kinds
from manifests.loras.scales import strengths_beside_tensors
from manifests.weights.digests import TensorHashes, tensor_hashes
from manifests.weights.header import Header, read_header


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraFileInfo:
    """What a usable LoRA file is.

    Attributes:
        digest: Identity: sha256 (hex) of its tensors, and of the strengths that its metadata or
            peft's settings beside it change; whatever else these say.
        file_sha256: sha256 (hex) of the file; its first 10 digits are Civitai's AutoV2.
        data_sha256: sha256 (hex) of the data section; its first 12 digits are AutoV3 and what
            A1111 writes as "Lora hashes".
        format: How the tensors are named.
        kinds: Of its updates, as people call them: ``LoRA``, ``LoCon``, ``DoRA`` ...
        not_fused: Kinds of those that are no product of two factors, which no method fuses, by
            component.
        conversion: Options that ``clora loras convert`` needs to make a plain LoRA of it; None if
            nothing of it has a place in one.
        family: Family of base models it was made for; ``unknown`` is no fault.
        cross_attention_width: Width of the text embedding it reads; None without such layers.
        num_layers: Adapted layers; 0 in a file of embeddings alone.
        embeddings: That it holds, as new words.
    """

    digest: str
    file_sha256: str
    data_sha256: str
    format: FileFormat
    kinds: tuple[str, ...]
    not_fused: Mapping[str, tuple[str, ...]]
    conversion: tuple[str, ...] | None
    family: str
    cross_attention_width: int | None
    num_layers: int
    embeddings: tuple[Embedding, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraContent:
    """A usable LoRA file with all that was read of it.

    Attributes:
        header: Of the file.
        layers: What it changes, sorted by name.
        settings: What decides their strength beside alphas of their own, by component and name.
        config: peft's settings beside the file; None where the file stands for itself.
        hashes: Of its bytes.
        info: What it is.
    """

    header: Header
    layers: tuple[LoraLayer, ...]
    settings: Mapping[str, Any]
    config: AdapterConfig | None
    hashes: TensorHashes
    info: LoraFileInfo


def inspect_lora_file(path: str | Path) -> LoraFileInfo:
    """Return what the LoRA file ``path`` is.

    Raises:
        LoraFileError: It cannot be used; the sentence names the file, the reason, the way out.
    """
    return lora_content(Path(path)).info


def lora_content(path: Path) -> LoraContent:
    """Return what the LoRA file ``path`` holds.

    Raises:
        LoraFileError: As ``inspect_lora_file``.
    """
    header = read_header(path)
    kind = _format(path, header)
    lora = header_lora(path, header)
    layers = lora.layers
    widths = cross_attention_widths(layers)
    if len(widths) > 1:
        raise LoraFileError(
            f"{path} reads text embeddings of widths {' and '.join(map(str, widths))}, and every "
            "base model has one; it was put together from LoRAs of two families: save one alone"
        )
    try:
        strengths = strengths_beside_tensors(path, header, layers, lora.settings)
        unread = {layer.idle_alpha for layer in layers if layer.idle_alpha is not None}
        hashes = tensor_hashes(path, header, strengths=strengths, unread=unread)
    except OSError as error:
        raise LoraFileError(f"{path} cannot be read: {error.strerror or error}") from error
    info = LoraFileInfo(
        digest=hashes.identity,
        file_sha256=hashes.file,
        data_sha256=hashes.data,
        format=kind,
        kinds=adapter_kinds(layers),
        not_fused=_not_fused(layers),
        conversion=_conversion(layers, lora.embeddings),
        family=model_family(layers) if layers else embedding_family(lora.embeddings),
        cross_attention_width=widths[0] if widths else None,
        num_layers=len(layers),
        embeddings=lora.embeddings,
    )
    return LoraContent(
        header=header,
        layers=layers,
        settings=lora.settings,
        config=lora.config,
        hashes=hashes,
        info=info,
    )


def _not_fused(layers: Sequence[LoraLayer]) -> dict[str, tuple[str, ...]]:
    others = [layer for layer in layers if not is_product(layer)]
    return {
        component: adapter_kinds([layer for layer in others if layer.component == component])
        for component in sorted({layer.component for layer in others})
    }


def _conversion(
    layers: Sequence[LoraLayer], embeddings: Sequence[Embedding]
) -> tuple[str, ...] | None:
    if not any(layer.changes_weight for layer in layers):
        return None
    gone = misplaced(layers, embeddings)
    needs_weights = any(layer.needs_base_weights for layer in layers)
    return (
        *(("--base-model MODEL",) if needs_weights else ()),
        *((f"--leave-out {','.join(gone)}",) if gone else ()),
    )


def _format(path: Path, header: Header) -> FileFormat:
    shapes = {name: entry.shape for name, entry in header.tensors.items()}
    parts = file_parts(path, shapes)
    if parts.embeddings and not parts.layers:
        refuse_other_kind(path, header.tensors)
        return "embedding"
    return file_format(path, {name: header.tensors[name] for name in parts.layers})


def header_lora(path: Path, header: Header) -> DescribedLora:
    """Return the layers of the file ``path`` with this header, and what says their strength.

    Raises:
        LoraFileError: As ``described_lora`` and ``refuse_other_numbers``.
    """
    shapes = {name: entry.shape for name, entry in header.tensors.items()}
    dtypes = {name: entry.dtype for name, entry in header.tensors.items()}
    lora = described_lora(path, shapes, header.metadata)
    refuse_other_numbers(path, lora.layers, lora.embeddings, dtypes)
    return lora
