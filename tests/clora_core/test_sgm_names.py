"""Stability's layer names, checked against the model they count through."""

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

from clora_core.recipe.lora.layers import tensor_names
from clora_core.recipe.lora.placement import ModelLayers
from clora_core.recipe.lora.sgm_names import diffusers_spelling


@pytest.fixture(scope="module")
def sdxl() -> ModelLayers:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(32, 64, 64),
            layers_per_block=2,
            transformer_layers_per_block=(1, 2, 2),
            cross_attention_dim=32,
        )
    linear = (torch.nn.Linear, torch.nn.Conv2d)
    found = {
        name: tuple(module.weight.shape)
        for name, module in unet.named_modules()
        if isinstance(module, linear)
    }
    return ModelLayers({"unet": found})


def test_attention_names_are_those_that_diffusers_converts_a_file_to(sdxl):
    config = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 64, 64),
    ).config
    blocks = [f"input_blocks_{n}_1" for n in (4, 5, 7, 8)]
    blocks += ["middle_block_1", *(f"output_blocks_{n}_1" for n in range(6))]
    stems = [f"{block}_transformer_blocks_0_attn1_to_q" for block in blocks]
    file = {
        f"lora_unet_{stem}.{part}": torch.zeros(4, 4)
        for stem in stems
        for part in ("lora_down.weight", "lora_up.weight")
    }
    converted, _ = StableDiffusionXLPipeline.lora_state_dict(dict(file), unet_config=config)
    written, read = (
        {(sdxl.find(name.layer), name.part) for name in tensor_names("x", keys).values()}
        for keys in (file, converted)
    )
    assert written == read
    assert None not in dict(written)


@pytest.mark.parametrize(
    ("sgm", "ours"),
    [
        ("input_blocks_1_0_in_layers_2", "down_blocks.0.resnets.0.conv1"),
        ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("input_blocks_4_0_skip_connection", "down_blocks.1.resnets.0.conv_shortcut"),
        ("middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
        ("output_blocks_8_0_emb_layers_1", "up_blocks.2.resnets.2.time_emb_proj"),
        ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
        ("output_blocks_5_1_proj_in", "up_blocks.1.attentions.2.proj_in"),
    ],
)
def test_every_kind_of_layer_is_found_in_the_model(sdxl, sgm, ours):
    assert sdxl.find(f"lora_unet_{sgm}") == ("unet", ours)


def test_names_of_diffusers_stay_as_they_are():
    assert diffusers_spelling("down_blocks_1_attentions_0_proj_in") == (
        "down_blocks_1_attentions_0_proj_in"
    )
