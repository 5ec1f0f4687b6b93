"""What the bank trains is what peft and diffusers load."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from emoji_world.lora_export import export_lora
from emoji_world.training.lora_bank import Adapter, LoraBank


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=8,
    ).eval()


ADAPTERS = (
    Adapter(name="narrow", rank=2),
    Adapter(name="wide", rank=4, feed_forward=True, convolutions=True),
)


def filled(bank):
    with torch.no_grad():
        for parameter in bank.up.values():
            parameter.normal_(std=0.2)
    return bank


def inputs(rows):
    torch.manual_seed(1)
    return torch.randn(rows, 4, 8, 8), torch.full((rows,), 500), torch.randn(rows, 5, 16)


@torch.no_grad()
def test_an_untrained_bank_changes_nothing(unet):
    arguments = inputs(4)
    before = unet(*arguments).sample
    bank = LoraBank(ADAPTERS, unet=unet)
    assert torch.equal(unet(*arguments).sample, before)
    bank.close()


@torch.no_grad()
def test_a_closed_bank_leaves_the_model_as_it_was(unet):
    arguments = inputs(4)
    before = unet(*arguments).sample
    filled(LoraBank(ADAPTERS, unet=unet)).close()
    assert torch.equal(unet(*arguments).sample, before)


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 1])
def test_each_part_of_the_batch_sees_its_own_lora_merged_into_the_weights(unet, index):
    plain = copy.deepcopy(unet)
    bank = filled(LoraBank(ADAPTERS, unet=unet))
    sample, time, text = inputs(4)
    banked = unet(sample, time, text).sample
    modules = dict(plain.named_modules())
    for path, factors in bank.factors(index).items():
        weight = modules[path.removeprefix("unet.")].weight
        change = factors.up.flatten(1) @ factors.down.flatten(1)
        weight += change.view_as(weight)
    own = slice(2 * index, 2 * index + 2)
    expected = plain(sample[own], time[own], text[own]).sample
    torch.testing.assert_close(banked[own], expected, rtol=1e-4, atol=1e-5)
    bank.close()


def test_a_lora_keeps_to_its_rank_and_its_layers(unet):
    bank = LoraBank(ADAPTERS, unet=unet)
    narrow = bank.factors(0)
    assert all(factors.down.shape[0] == 2 for factors in narrow.values())
    assert not any("ff.net" in path or "conv" in path for path in narrow)
    assert any("conv1" in path for path in bank.factors(1))
    bank.close()


@torch.no_grad()
def test_a_peft_file_loads_in_diffusers_and_does_what_the_bank_did(unet, tmp_path):
    bank = filled(LoraBank(ADAPTERS, unet=unet))
    sample, time, text = inputs(4)
    banked = unet(sample, time, text).sample[:2]
    factors = {path: (f.down, f.up) for path, f in bank.factors(0).items()}
    bank.close()
    path = tmp_path / "narrow.safetensors"
    export_lora(path, factors, file_format="peft", rank=2, alpha=2, title="n", trigger=None)
    unet.load_lora_adapter(load_file(path), prefix="unet")
    loaded = unet(sample[:2], time[:2], text[:2]).sample
    torch.testing.assert_close(loaded, banked, rtol=1e-2, atol=1e-2)  # the file is fp16


def test_kohya_files_carry_alpha_and_undo_it_in_the_factors(tmp_path):
    path = tmp_path / "k.safetensors"
    factors = {"unet.mid_block.to_q": (torch.ones(4, 8), torch.ones(8, 4))}
    export_lora(path, factors, file_format="kohya", rank=4, alpha=2, title="k", trigger="<l1>")
    stored = load_file(path)
    stem = "lora_unet_mid_block_to_q"
    assert stored[f"{stem}.alpha"] == 2
    product = stored[f"{stem}.lora_up.weight"] @ stored[f"{stem}.lora_down.weight"] * 2 / 4
    assert torch.equal(product, torch.full((8, 8), 4.0, dtype=torch.float16))


def test_an_unknown_format_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="file_format must be one of peft, diffusers, kohya"):
        export_lora(
            tmp_path / "x", {}, file_format="pickle", rank=1, alpha=1, title="", trigger=None
        )
