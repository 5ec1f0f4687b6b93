"""One layer under every name that tools write for it."""

import pytest

from clora_core.recipe.lora.names import (
    dotted_layer_name,
    flat_layer_name,
    split_layer_name,
    tensor_name,
)

ATTENTION = "mid_block.attentions.0.attn1"


@pytest.mark.parametrize(
    ("names", "flat"),
    [
        (
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1",
                "lora_te1_encoder_layers_0_mlp_fc1",
                "text_encoder.text_model.encoder.layers.0.mlp.fc1",
                "text_encoder.encoder.layers.0.mlp.fc1",
            ),
            "text_encoder.encoder_layers_0_mlp_fc1",
        ),
        (
            ("lora_te2_text_model_encoder_layers_1_mlp_fc1",),
            "text_encoder_2.encoder_layers_1_mlp_fc1",
        ),
        (
            ("conv_in", "unet.conv_in", "base_model.model.conv_in", "lora_unet_conv_in"),
            "unet.conv_in",
        ),
        (
            (
                f"{ATTENTION}.to_out.0",
                f"unet.{ATTENTION}.processor.to_out_lora",
                f"lora_unet_{ATTENTION.replace('.', '_')}_to_out_0",
                f"lora_unet_{ATTENTION.replace('.', '_')}_processor_to_out_lora",
            ),
            "unet.mid_block_attentions_0_attn1_to_out_0",
        ),
    ],
)
def test_names_of_one_layer_become_one(names, flat):
    assert {flat_layer_name(name) for name in names} == {flat}
    assert {split_layer_name(name)[0] for name in names} == {flat.partition(".")[0]}
    for name in names:
        dotted = dotted_layer_name(name)
        assert (dotted is None) == name.startswith("lora_")
        assert dotted is None or flat_layer_name(f"{split_layer_name(name)[0]}.{dotted}") == flat


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".alpha",
        ".lora_A.weight",
        "_lora.down.weight",
        "x.lora_A",
        "x.lora_A.other.weight",
        "x.lora_C.weight",
        "x.lora_down.weight",
        "lora_unet_a.b.lora_down.weight",
        "lora_clip_x.lora_up.weight",
        "x.lora_A.weight\n",
    ],
)
def test_a_name_of_no_convention_is_no_part(name):
    assert tensor_name(name) is None
