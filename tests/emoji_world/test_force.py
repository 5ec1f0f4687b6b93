"""What lanes do to an instance is measured with LoRAs that are added to the weights and removed."""

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from clora_core.diffusion.conditions import Conditions
from clora_core.diffusion.model import load_base_model
from clora_core.lora.bank import LoraBank
from clora_core.lora.load import lora_targets, read_lora
from emoji_world import base_model_dir, lora_catalog
from emoji_world.measures.force import merged

FILES = [
    lora_catalog().parent / f"{name}.safetensors"
    for name in ("retro-robot", "mint-taxi", "plain-violet-cat")  # a LoCon, text encoder, plain
]


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return StableDiffusionPipeline.from_pretrained(
        base_model_dir(), safety_checker=None, dtype=torch.float32
    )


def states(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}": value.clone()
        for part in ("unet", "text_encoder")
        for name, value in getattr(pipeline, part).state_dict().items()
    }


@torch.no_grad()
def test_merged_weights_give_what_the_bank_gives(pipeline: Any):
    model = load_base_model(base_model_dir())
    latents, text = torch.randn(2, 8, 16, 16), torch.randn(2, 24, 96)
    loras = [read_lora(file, lora_targets(model.components)) for file in FILES]
    bank = LoraBank(model.unet, loras, "unet")
    with bank.attached():
        bank.use(torch.ones(2, len(loras)))
        expected = model.run_unet(latents, torch.tensor(300), Conditions(text))
    with merged(pipeline, FILES):
        found = pipeline.unet(latents, 300, text).sample
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(pipeline.unet(latents, 300, text).sample, expected, atol=1e-2)


@torch.no_grad()
def test_weights_are_as_before_even_after_an_error(pipeline: Any):
    before = states(pipeline)
    changed: list[str] = []

    def fails_within() -> None:
        with merged(pipeline, FILES):
            now = states(pipeline)
            changed.extend(name for name, value in now.items() if not value.equal(before[name]))
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fails_within()
    assert any(name.startswith("text_encoder") for name in changed)
    assert all(value.equal(before[name]) for name, value in states(pipeline).items())
