"""Sizes of attention maps as a configuration says them, against those that are measured."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from clora_core.diffusion.attention import choose_map_layers, measure_cross_attention
from clora_core.diffusion.model import load_base_model
from clora_core.recipe.map_sizes import MapGrid, map_grid, size_problem
from emoji_world import base_model_dir
from manifests.weights.base_model import inspect_base_model

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
SHAPES: dict[str, dict[str, Any]] = {
    "Stable Diffusion 1.5": {
        "sample_size": 64,
        "down_block_types": [CROSS, CROSS, CROSS, PLAIN],
        "up_block_types": [PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP],
    },
    "Stable Diffusion 2.1": {
        "sample_size": 48,
        "down_block_types": [CROSS, CROSS, CROSS, PLAIN],
        "up_block_types": [PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP],
        "use_linear_projection": True,
    },
    "Stable Diffusion XL": {
        "sample_size": 64,
        "down_block_types": [PLAIN, CROSS, CROSS],
        "up_block_types": [CROSS_UP, CROSS_UP, PLAIN_UP],
        "transformer_layers_per_block": [1, 2, 3],
        "use_linear_projection": True,
    },
    "without attention in the middle": {
        "sample_size": 32,
        "down_block_types": [CROSS, PLAIN],
        "up_block_types": [PLAIN_UP, CROSS_UP],
        "mid_block_type": None,
    },
    "a level without transformer blocks": {
        "sample_size": 64,
        "down_block_types": [CROSS, CROSS, CROSS],
        "up_block_types": [CROSS_UP, CROSS_UP, CROSS_UP],
        "transformer_layers_per_block": [0, 1, 1],
    },
    "up alone": {
        "sample_size": 64,
        "down_block_types": [PLAIN, PLAIN, PLAIN],
        "up_block_types": [PLAIN_UP, CROSS_UP, PLAIN_UP],
        "mid_block_type": "UNetMidBlock2D",
    },
}


def measured(shape: dict[str, Any]) -> dict[str, int]:
    """Return the positions that each cross-attention of such a UNet sees."""
    levels = len(shape["down_block_types"])
    unet = UNet2DConditionModel(
        **shape,
        block_out_channels=(4,) * levels,
        layers_per_block=1,
        attention_head_dim=1,
        norm_num_groups=2,
        cross_attention_dim=4,
    )
    side = shape["sample_size"]
    latents, text = torch.zeros(1, 4, side, side), torch.zeros(1, 1, 4)
    return measure_cross_attention(unet, lambda: unet(latents, 0, text))


@pytest.mark.parametrize("name", SHAPES)
def test_a_configuration_says_the_sizes_that_are_measured(name: str):
    shape = SHAPES[name]
    lengths = measured(shape)
    grid = map_grid(shape, image_scale=8)
    assert grid is not None
    assert set(grid.sides) == {round(length**0.5) for length in lengths.values()}
    for wanted in (None, *grid.sides):
        layers = choose_map_layers(lengths, latent_side=shape["sample_size"], map_size=wanted)
        assert grid.multiple_px(wanted) == 8 * layers.downsampling


@pytest.mark.parametrize("name", ["tiny_sd_dir", "tiny_sdxl_dir", "embedded"])
def test_a_model_folder_says_what_the_loaded_model_is_measured_to_be(name: str, request: Any):
    folder = base_model_dir() if name == "embedded" else request.getfixturevalue(name)
    grid = inspect_base_model(Path(folder)).maps
    model = load_base_model(folder)
    assert grid is not None
    for wanted in (None, *grid.sides):
        multiple_px = model.image_scale * model.map_layers(wanted).downsampling
        assert grid.multiple_px(wanted) == multiple_px
    with pytest.raises(ValueError, match="no cross-attention with maps of 7x7") as here:
        grid.multiple_px(7)
    with pytest.raises(ValueError, match="no cross-attention with maps of 7x7") as there:
        model.map_layers(7)
    assert str(here.value) == str(there.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"down_block_types": ["KDownBlock2D"] * 4},
        {"up_block_types": None},
        {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
        {"sample_size": 65},
        {"sample_size": [64, 64]},
        {"transformer_layers_per_block": [1, 2]},
        {"transformer_layers_per_block": [[1, 2], 1, 1, 1]},
        {"reverse_transformer_layers_per_block": [1, 1, 1, 1]},
        {"dual_cross_attention": True},
        {"down_block_types": [PLAIN] * 4, "up_block_types": [PLAIN_UP] * 4, "mid_block_type": None},
    ],
)
def test_a_configuration_that_leaves_the_sizes_open_says_none(changes: dict[str, Any]):
    assert map_grid(SHAPES["Stable Diffusion 1.5"] | changes, image_scale=8) is None


def test_both_sides_must_be_multiples():
    assert MapGrid(latent_side=64, sides=(8, 16), image_scale=8).multiple_px(None) == 32
    assert size_problem(512, 768, 32) is None
    assert str(size_problem(512, 520, 32)).startswith("size 512x520 px: both sides must be mult")
    assert str(size_problem(520, 512, 32)).startswith("size 520x512 px: both sides must be mult")
