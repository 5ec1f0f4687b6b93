"""diffusers' training scripts: today's files through diffusers itself, and two older spellings.

A script has peft's tensors renamed by ``convert_state_dict_to_diffusers`` and saves them with
``StableDiffusionPipeline.save_lora_weights``, today with the settings as metadata, until 2025
without them, when alpha was the rank. That renaming knows the projections of attentions alone:
they become ``to_q.lora.down`` and ``q_proj.lora_linear_layer.down``, and all else in the file keeps
``lora_A``. Without it all have peft's names. Before peft, layers had LoRAs of
their own (``to_q.lora.down``), and at first attentions had processors with theirs
(``processor.to_q_lora.down``), with strength 1.
"""

from pathlib import Path

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.utils import set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from adapters.case import (
    AdapterCase,
    Components,
    Effect,
    Expected,
    Family,
    Layer,
    Place,
    Trainer,
    saved,
)
from adapters.factors import Source
from adapters.kohya_files import low_rank_effect, low_rank_parts
from adapters.layers import IN_RESIDUAL, IN_TEXT, IN_TRANSFORMER, chosen, layers_named
from adapters.peft_files import effects, holding, settings, train
from adapters.spellings import dotted, old_processor, text_name

_PIPELINES = {"sd15": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
_NO_METADATA = "scripts until 2025"
_PEFT = "peft names"
_OLD = ("lora.down", "processor")
_ATTENTION = IN_TRANSFORMER[:3]


def layers(case: AdapterCase, components: Components) -> list[Layer]:
    names, text = (*IN_TRANSFORMER, *IN_RESIDUAL), IN_TEXT
    if case.spelling == "processor":
        names, text = _ATTENTION, IN_TEXT[:1]
    elif case.spelling == "lora.down":
        names = IN_TRANSFORMER
    found = chosen(case, components, layers_named(components, names, text=text))
    if case.kind == "dora":
        return [layer for layer in found if layer.component == "unet"]
    return found


def write(folder: Path, case: AdapterCase, components: Components) -> Expected:
    if case.spelling in _OLD:
        return _write_old(folder, case, components)
    given: dict[str, object] = {}
    found: dict[Place, Effect] = {}
    for component, model in components.items():
        own = {_own_name(x): x for x in layers(case, components) if x.component == component}
        if not own:
            continue
        config = _config(case, list(own))
        trained = inject_adapter_in_model(config, holding(own, model))
        train(case, trained, own)
        tensors = get_peft_model_state_dict(trained)
        renamed = tensors if case.spelling == _PEFT else convert_state_dict_to_diffusers(tensors)
        given[f"{component}_lora_layers"] = renamed
        if case.spelling != _NO_METADATA:
            given[f"{component}_lora_adapter_metadata"] = config.to_dict()
        read = inject_adapter_in_model(_config(case, list(own)), holding(own, model))
        set_peft_model_state_dict(read, tensors)
        found |= effects(read, own)
    name = f"{case}.safetensors"
    _PIPELINES[case.family].save_lora_weights(folder, weight_name=name, **given)
    return Expected(folder / name, found)


def _own_name(layer: Layer) -> str:
    return layer.name if layer.component == "unet" else text_name(layer)


def _config(case: AdapterCase, names: list[str]) -> LoraConfig:
    config = settings(case, names)
    assert isinstance(config, LoraConfig)
    if case.spelling == _NO_METADATA:
        config.lora_alpha = case.rank
    return config


def _write_old(folder: Path, case: AdapterCase, components: Components) -> Expected:
    tensors: dict[str, Tensor] = {}
    found: dict[Place, Effect] = {}
    for layer in layers(case, components):
        shape = tuple(layer.weight.shape)
        parts = low_rank_parts(Source(case, layer), layer, shape, case.rank, alpha=None)
        parts = {part: saved(case, tensor) for part, tensor in parts.items()}
        found[layer.place] = low_rank_effect(layer, parts)
        has_own = case.spelling == "lora.down" and layer.component == "unet"
        stem = f"{dotted(layer)}.lora" if has_own else old_processor(layer)
        tensors[f"{stem}.down.weight"] = parts["lora_down.weight"]
        tensors[f"{stem}.up.weight"] = parts["lora_up.weight"]
    path = folder / f"{case}.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    assert load_file(path)
    return Expected(path, found)


def why_not(kind: str, spelling: str, family: Family) -> str | None:  # noqa: ARG001
    if spelling in _OLD and kind != "lora":
        return "older than that kind"
    if spelling == _NO_METADATA and kind == "lora rank-stabilised":
        return "no script of then had the setting"
    return None


DIFFUSERS = Trainer(
    name="diffusers scripts",
    kinds=("lora", "lora rank-stabilised", "dora"),
    spellings=("scripts", _PEFT, _NO_METADATA, *_OLD),
    layers=layers,
    write=write,
    why_not=why_not,
)
