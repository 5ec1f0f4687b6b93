"""Scales from metadata, against what peft makes of the same settings."""

import json

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.scales import PeftScales, metadata_settings, read_scales


def scales_of(metadata: dict[str, str]) -> PeftScales:
    return read_scales("x.safetensors", metadata_settings(metadata))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_alpha": 2.0},
        {"lora_alpha": 2.0, "use_rslora": True},
        {"lora_alpha": 2.0, "alpha_pattern": {"block1.1.to_q": 7.0}},
        {"lora_alpha": 2.0, "alpha_pattern": {r"\d+.to_k": 5.0}, "use_rslora": True},
        {"r": 3},
        {"r": 3, "use_rslora": True, "alpha_pattern": {"to_k": 5.0}},
        {"use_rslora": True},
    ],
)
def test_a_layers_scale_is_the_one_that_peft_would_use(settings):
    def pair() -> torch.nn.ModuleDict:
        return torch.nn.ModuleDict({name: torch.nn.Linear(4, 4) for name in ("to_q", "to_k")})

    model = torch.nn.ModuleDict(
        {f"block{i}": torch.nn.ModuleList([pair(), pair()]) for i in range(2)}
    )
    # Where the settings speak of ranks, what they leave out is peft's own default.
    unsaid = {} if {"r", "use_rslora"} & set(settings) else {"lora_alpha": 3.0}
    config = LoraConfig(target_modules=["to_q", "to_k"], **{"r": 3, **unsaid, **settings})
    inject_adapter_in_model(config, model)
    told = {f"unet.{key}": value for key, value in settings.items()}
    scales = scales_of({"lora_adapter_metadata": json.dumps(told)})
    for name, module in model.named_modules():
        if name.endswith(("to_q", "to_k")):
            assert scales.scale("unet", name, 3, None) == pytest.approx(module.scaling["default"])


def test_an_alpha_tensor_comes_before_metadata():
    scales = scales_of({"lora_adapter_metadata": '{"unet.lora_alpha": 8}'})
    assert scales.scale("unet", "to_q", 4, 2.0) == 0.5


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"unet.lora_alpha": "much"}', "null", "[" * 9999, "1" * 9999]
)
def test_damaged_metadata_say_nothing(text):
    assert scales_of({"lora_adapter_metadata": text}).scale("unet", "q", 4, None) == 1.0


@pytest.mark.parametrize(
    "patterns",
    [
        ["(a+)+b"],
        ["("],
        [".*.*.*x"],
        ["a{9999}"],
        ["to_q" * 100 + ".*"],
        [f"x{i}.*" for i in range(17)],
    ],
)
def test_a_pattern_that_may_not_end_is_refused_before_it_is_tried(patterns):
    told = json.dumps({"unet.alpha_pattern": dict.fromkeys(patterns, 2.0)})
    with pytest.raises(LoraFileError, match="plain layer names and up to 16 patterns"):
        scales_of({"lora_adapter_metadata": told})


def test_an_alpha_too_large_for_a_number_is_not_finite():
    told = json.dumps({"unet.lora_alpha": 10**400})
    scale = scales_of({"lora_adapter_metadata": told}).scale("unet", "q", 4, None)
    assert scale == float("inf")


def test_as_many_patterns_as_there_are_layers_are_read_and_more_are_refused():
    def told(count: int) -> dict[str, str]:
        patterns = {f"block{number}.to_q": number for number in range(count)}
        return {"lora_adapter_metadata": json.dumps({"unet.alpha_pattern": patterns})}

    scales = scales_of(told(5000))
    assert scales.scale("unet", "down.block4999.to_q", 1, None) == 4999
    with pytest.raises(LoraFileError, match="sets alphas by 5,001 patterns; at most 5,000"):
        scales_of(told(5001))


def test_settings_without_a_component_are_those_of_layers_without_one():
    told = {"lora_adapter_metadata": json.dumps({"lora_alpha": 12, "text_encoder.lora_alpha": 2})}
    scales = PeftScales(metadata_settings(told, ["unet", "text_encoder"]))
    assert scales.scale("unet", "to_q", 4) == 3.0
    assert scales.scale("text_encoder", "q_proj", 4) == 0.5  # what names its component is closer
    assert PeftScales(metadata_settings(told)).scale("unet", "to_q", 4) == 1.0
