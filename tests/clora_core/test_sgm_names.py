"""Stability's layer names, checked against the models they count through."""

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from oracles.stability_names import stability_names

from clora_core.recipe.lora.layers import tensor_names
from clora_core.recipe.lora.names import flat_layer_name
from clora_core.recipe.lora.placement import ModelLayers
from clora_core.recipe.lora.sgm_names import Levels, diffusers_spelling, levels

SDXL_BLOCKS: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "SD1.5": {"cross_attention_dim": 768},
    "SDXL": SDXL_BLOCKS
    | {
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "cross_attention_dim": 2048,
    },
    "one layer a level": {"block_out_channels": (32, 64, 64, 64), "layers_per_block": 1},
    "three layers a level": SDXL_BLOCKS
    | {"block_out_channels": (32, 64, 64), "layers_per_block": 3},
    "levels that differ": SDXL_BLOCKS
    | {"block_out_channels": (32, 64, 64), "layers_per_block": (1, 3, 2)},
}


@pytest.fixture(scope="module", params=CONFIGS)
def unet(request: pytest.FixtureRequest) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**CONFIGS[request.param])


def layers_of(unet: UNet2DConditionModel) -> ModelLayers:
    """Return all that has weights; norms, too, which other adapters than LoRAs change."""
    return ModelLayers(
        {
            "unet": {
                name: tuple(unet.get_submodule(name).weight.shape) for name in stability_names(unet)
            }
        }
    )


def test_every_layer_is_found_by_its_name_in_stabilitys_spelling(unet):
    model = layers_of(unet)
    for ours, sgm in stability_names(unet).items():
        flat = sgm.replace(".", "_")
        for written in (f"lora_unet_{flat}", f"diffusion_model.{sgm}", sgm, f"unet.{ours}"):
            assert model.find(written) == ("unet", ours)


@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_released_models_are_read_as_diffusers_converts_their_checkpoints(family):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**CONFIGS[family])
    tensors: dict[str, torch.Tensor] = {}
    written: list[str] = []
    for ours, sgm in stability_names(unet).items():
        for parameter, _ in unet.get_submodule(ours).named_parameters(recurse=False):
            tensors[f"model.diffusion_model.{sgm}.{parameter}"] = torch.tensor(len(written))
            written.append(sgm)
    converted = convert_ldm_unet_checkpoint(tensors, {**unet.config, "class_embed_type": None})
    assert set(converted) == set(unet.state_dict())
    model = layers_of(unet)
    for name, number in converted.items():
        layer = name.rpartition(".")[0]
        sgm = f"lora_unet_{written[int(number)].replace('.', '_')}"
        assert model.find(sgm) == ("unet", layer)
        assert flat_layer_name(sgm) == flat_layer_name(f"unet.{layer}")


@pytest.mark.parametrize("count", [1, 2])
def test_attention_names_are_those_that_diffusers_converts_a_file_to(count: int):
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            **SDXL_BLOCKS, block_out_channels=(32, 64, 64), layers_per_block=count
        )
    stems = [
        sgm.replace(".", "_")
        for sgm in stability_names(unet).values()
        if sgm.endswith(("to_q", "proj_in", "in_layers.2", "op", "conv"))
        and "_blocks.0." not in sgm
    ]
    file = {
        f"lora_unet_{stem}.{part}": torch.zeros(4, 4)
        for stem in stems
        for part in ("lora_down.weight", "lora_up.weight")
    }
    converted, _ = StableDiffusionXLPipeline.lora_state_dict(dict(file), unet_config=unet.config)
    model = layers_of(unet)
    by_us, by_diffusers = (
        {(model.find(name.layer), name.part) for name in tensor_names("x", keys).values()}
        for keys in (file, converted)
    )
    assert by_us == by_diffusers
    assert None not in dict(by_us)


def test_levels_are_counted_in_the_model():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**CONFIGS["levels that differ"])
    names = [name.replace(".", "_") for name, _ in unet.named_modules()]
    assert levels(names) == Levels(down=(1, 3, 2), up=(3, 4, 2))


@pytest.mark.parametrize(
    "name",
    [
        "down_blocks_1_attentions_0_proj_in",
        "input_blocks_3_1_proj_in",  # where the level ends
        "input_blocks_2_0_op",  # and where it doesn't
        "input_blocks_1_0_conv1",
        "input_blocks_1_2_conv",
        "input_blocks_99_0_in_layers_2",
        "middle_block_3_proj_in",
        "output_blocks_1_2_conv",
        "output_blocks_99_1_proj_in",
        "time_embed_1",
        "out_1",
    ],
)
def test_a_name_that_released_models_have_no_layer_for_stays_as_it_is(name: str):
    assert diffusers_spelling(name) == name
