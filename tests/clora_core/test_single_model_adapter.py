"""What diffusers' ``save_lora_adapter`` writes of a UNet alone acts here as diffusers loads it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from oracles.core_runs import Core, relative
from peft import LoraConfig

from clora_core.lora.bank import LoraBank
from clora_core.recipe.errors import LoraFileError
from manifests.loras.about.report import lora_report

TARGETS = {"target_modules": ["attn1.to_q", "attn2.to_k", "conv1"], "init_lora_weights": False}
SETTINGS: dict[str, dict[str, Any]] = {
    "alpha": {"r": 4, "lora_alpha": 8},
    "root of the rank": {"r": 4, "lora_alpha": 8, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"attn1.to_q": 2},
        "alpha_pattern": {"attn2.to_k": 1, r"^down.*\.conv1": 2},
    },
}


@pytest.fixture(scope="module")
def core(tiny_sd_dir) -> Core:
    return Core(tiny_sd_dir, "float64")


@pytest.fixture
def fresh(tiny_sd_dir):
    """Return a UNet that peft may change."""
    return lambda: UNet2DConditionModel.from_pretrained(tiny_sd_dir / "unet")


def predicted(unet: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64)
    text = torch.randn(1, 77, 32, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        return unet(sample, 500, encoder_hidden_states=text).sample


def saved(folder: Path, unet: Any, settings: dict[str, Any]) -> Path:
    torch.manual_seed(3)
    unet.add_adapter(LoraConfig(**TARGETS, **settings))
    unet.save_lora_adapter(folder)
    return folder / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("case", SETTINGS)
def test_a_unets_own_adapter_is_as_strong_as_diffusers_makes_it(core, fresh, tmp_path, case):
    path = saved(tmp_path, fresh(), SETTINGS[case])
    theirs = fresh()
    # Without use_safetensors diffusers leaves the metadata unread, and the strength with them.
    theirs.load_lora_adapter(path, prefix=None, use_safetensors=True)
    theirs = theirs.double()
    bank = LoraBank(core.model.unet, [core.factors(path)], "unet")
    with bank.attached():
        bank.use(torch.ones(1, 1, dtype=torch.float64))
        ours = predicted(core.model.unet)
    assert relative(ours, predicted(theirs)) < 1e-12
    assert relative(ours, predicted(core.model.unet)) > 1e-3


def test_its_strength_is_part_of_its_identity(fresh, tmp_path):
    plain, strong = (
        lora_report(saved(tmp_path / str(alpha), fresh(), {"r": 4, "lora_alpha": alpha}))
        for alpha in (4, 8)
    )
    assert (plain.scales, strong.scales) == ((1.0,), (2.0,))
    assert plain.info.digest != strong.info.digest


def test_beside_settings_of_pefts_own_it_says_its_strength_twice(fresh, tmp_path):
    path = saved(tmp_path, fresh(), {"r": 4, "lora_alpha": 8})
    path = path.rename(path.with_name("adapter_model.safetensors"))
    path.with_name("adapter_config.json").write_text(
        '{"peft_type": "LORA", "r": 4, "lora_alpha": 8}'
    )
    with pytest.raises(LoraFileError, match="says its strength itself"):
        lora_report(path)
