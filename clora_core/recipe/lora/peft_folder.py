"""A LoRA as peft's own ``save_pretrained`` leaves it: tensors in one file, strength in another.

Files of other tools say their strength themselves. peft names tensors ``base_model.model.`` and the
layer, which says neither how strong they are nor what part of a model they are of; that stands in
``adapter_config.json`` in the same folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.adapter_config import (
    ADAPTER_FILE,
    CONFIG_FILE,
    PARTS_BY_SETTING,
    AdapterConfig,
    read_adapter_config,
)
from clora_core.recipe.lora.alpha_patterns import AlphaPatterns, as_alpha
from clora_core.recipe.lora.embeddings import Embedding, file_parts
from clora_core.recipe.lora.layers import LoraLayer, lora_layers
from clora_core.recipe.lora.names import PEFT_PREFIX, has_component
from clora_core.recipe.lora.parts import tensor_name
from clora_core.recipe.lora.scales import metadata_settings
from clora_core.recipe.lora.shapes.size import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribedLora:
    """The layers of a LoRA file, and what is said of them.

    Attributes:
        layers: Sorted by name.
        settings: What decides their strength beside alphas of their own, with the component before
            each name, as diffusers writes it.
        config: peft's settings beside the file; None where the file stands for itself.
        embeddings: That it holds besides, or alone.
    """

    layers: tuple[LoraLayer, ...]
    settings: Mapping[str, Any]
    config: AdapterConfig | None
    embeddings: tuple[Embedding, ...] = ()


def described_lora(
    path: Path, shapes: Mapping[str, Shape], metadata: Mapping[str, str]
) -> DescribedLora:
    """Return the layers of the file ``path`` and all that says their strength.

    Args:
        path: The file.
        shapes: Of its tensors, by name.
        metadata: Of that file.

    Raises:
        LoraFileError: As ``file_parts``, ``lora_layers`` and ``read_adapter_config``, nothing says
            the strength of a file of peft's, or the settings beside it are of another file.
    """
    parts = file_parts(path, shapes)
    layers = lora_layers(path, parts.layers)
    is_bare = not any(has_component(layer.name) for layer in layers)
    own = metadata_settings(metadata, {layer.component for layer in layers} if is_bare else ())
    if parts.embeddings and not layers:
        return DescribedLora(layers=(), settings=own, config=None, embeddings=parts.embeddings)
    described = _described_layers(path, layers, own, is_bare=is_bare)
    return replace(described, embeddings=parts.embeddings)


def _described_layers(
    path: Path, layers: tuple[LoraLayer, ...], own: Mapping[str, Any], *, is_bare: bool
) -> DescribedLora:
    if not is_bare or not all(map(_is_of_peft, layers)):
        return DescribedLora(layers=layers, settings=own, config=None)
    config = read_adapter_config(path)
    if config is None:
        _refuse_without_strength(path, layers, own)
        return DescribedLora(layers=layers, settings=own, config=None)
    _refuse_second_strength(path, layers, own)
    owned = tuple(_ranked(path, _owned(path, layer, config), config) for layer in layers)
    settings = {
        f"{component}.{name}": value
        for component in sorted({layer.component for layer in owned})
        for name, value in config.strength.items()
    }
    return DescribedLora(layers=owned, settings=settings, config=config)


def _is_of_peft(layer: LoraLayer) -> bool:
    meanings = map(tensor_name, layer.tensors.values())
    return all(meaning is not None and meaning.writer in ("peft", None) for meaning in meanings)


def _refuse_without_strength(
    path: Path, layers: Sequence[LoraLayer], own: Mapping[str, Any]
) -> None:
    silent = [layer.name for layer in layers if _is_silent(layer, own)]
    if silent:
        raise LoraFileError(
            f"{path} has peft's own names ({silent[0][:100]!r}), and nothing says how strong "
            f"{len(silent):,} of its {len(layers):,} layers are: peft keeps that in {CONFIG_FILE}; "
            f"put both files into one folder, as {ADAPTER_FILE} and {CONFIG_FILE}, and name that "
            "folder"
        )


def _is_silent(layer: LoraLayer, own: Mapping[str, Any]) -> bool:
    if not layer.name.startswith(PEFT_PREFIX) or layer.alpha is not None:
        return False
    # In metadata stand the settings of LoRAs alone.
    said = own.get(f"{layer.component}.lora_alpha") if layer.kind == "lora" else None
    return as_alpha(said) is None


def _refuse_second_strength(
    path: Path, layers: Sequence[LoraLayer], own: Mapping[str, Any]
) -> None:
    alphas = [layer.tensors["alpha"] for layer in layers if "alpha" in layer.tensors]
    said = alphas[0] if alphas else next((name for name in own if name.endswith("alpha")), None)
    if said is not None:
        raise LoraFileError(
            f"{path} says its strength itself ({said[:100]!r}) and has {CONFIG_FILE} beside it, "
            "which says it, too; keep one of the two"
        )


def _owned(path: Path, layer: LoraLayer, config: AdapterConfig) -> LoraLayer:
    """Return the layer in the component that the settings name."""
    by_name, component = layer.component, config.component or layer.component
    if (by_name == "unet") != (component == "unet"):
        raise LoraFileError(
            f"{config.path} says that it is of the {component} (auto_mapping), and {path} has the "
            f"layer {layer.name[:100]!r}; put the settings of that file beside it"
        )
    name = layer.dotted_name or layer.name
    if config.targets is not None and not _is_target(name, config.targets):
        raise LoraFileError(
            f"{config.path} has no {name[:100]!r} among its target_modules, and {path} has that "
            "layer; put the settings of that file beside it"
        )
    _refuse_other_kind(path, layer, config)
    return replace(layer, owner=component, cayley=config.cayley)


def _refuse_other_kind(path: Path, layer: LoraLayer, config: AdapterConfig) -> None:
    """Hold a layer's parts to those that the settings speak of."""
    beside = f"{path} has the layer {layer.name[:100]!r}"
    if layer.kind != config.kind:
        raise LoraFileError(
            f"{config.path} has the peft_type {config.peft_type!r}, and {beside} with the parts "
            f"{', '.join(sorted(layer.tensors))}; put the settings of that file beside it"
        )
    for setting, part in PARTS_BY_SETTING:
        if (part in config.has) != (part in layer.tensors):
            is_there = "without" if part in config.has else "with"
            raise LoraFileError(
                f"{config.path} has {setting} {str(part in config.has).lower()}, and {beside} "
                f"{is_there} one; put the settings of that file beside it"
            )
    blocks = layer.shapes.get("oft_R")
    if blocks is not None and config.is_shared and blocks[0] != 1:
        raise LoraFileError(
            f"{config.path} has block_share true, and {beside} with {blocks[0]} blocks; put the "
            "settings of that file beside it"
        )


def _is_target(name: str, targets: frozenset[str]) -> bool:
    if "all-linear" in targets:
        return True
    ends = [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]
    return any(name[start:] in targets for start in ends)


def _ranked(path: Path, layer: LoraLayer, config: AdapterConfig) -> LoraLayer:
    """Return the layer with its rank, held to that of the settings as far as these decide it."""
    if config.r is None:
        return layer
    ranks = AlphaPatterns(config.rank_pattern, are_tried=False)
    said = {config.r if r is None else int(r) for r in ranks.possible(layer.dotted_name)}
    if not layer.is_scaled:
        return _ranked_by_settings(layer, config, said)
    if layer.rank not in said:
        raise LoraFileError(
            f"{config.path} gives {layer.name[:100]!r} the rank "
            f"{' or '.join(map(str, sorted(said)))}, and {path} has it with rank {layer.rank}; "
            "put the settings of that file beside it"
        )
    return layer


def _ranked_by_settings(layer: LoraLayer, config: AdapterConfig, said: set[int]) -> LoraLayer:
    """Return a Kronecker product of whole factors, which peft scales, too."""
    if len(said) > 1:
        raise LoraFileError(
            f"{config.path} gives {layer.name[:100]!r} a rank by a pattern that is no plain name, "
            "and nothing in the tensors says it; write the layer's name into rank_pattern"
        )
    (rank,) = said
    return replace(layer, size=replace(layer.size, rank=rank), is_ranked=True)
