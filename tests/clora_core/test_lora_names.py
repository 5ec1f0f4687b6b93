"""One layer under every name that tools write for it."""

import pytest

from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.layers import tensor_names
from clora_core.recipe.lora.names import (
    dotted_layer_name,
    flat_layer_name,
    split_layer_name,
)
from clora_core.recipe.lora.parts import tensor_name
from clora_core.recipe.lora.placement import ModelLayers

ATTENTION = "mid_block.attentions.0.attn1"


@pytest.mark.parametrize(
    ("names", "flat"),
    [
        (
            (
                "lora_te_text_model_encoder_layers_0_mlp_fc1",
                "lora_te1_encoder_layers_0_mlp_fc1",
                "lora_te1.text_model.encoder.layers.0.mlp.fc1",
                "lycoris_text_model_encoder_layers_0_mlp_fc1",
                "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
                "text_encoders.clip_h.transformer.text_model.encoder.layers.0.mlp.fc1",
                "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
                "base_model.model.text_model.encoder.layers.0.mlp.fc1",
                "base_model.model.text_encoder.text_model.encoder.layers.0.mlp.fc1",
                "text_encoder.text_model.encoder.layers.0.mlp.fc1",
                "text_encoder.encoder.layers.0.mlp.fc1",
            ),
            "text_encoder.encoder_layers_0_mlp_fc1",
        ),
        (
            (
                "lora_te2_text_model_encoder_layers_1_mlp_fc1",
                "lora_te2.text_model.encoder.layers.1.mlp.fc1",
                "text_encoder_2.text_model.encoder.layers.1.mlp.fc1",
                "text_encoders.clip_g.transformer.text_model.encoder.layers.1.mlp.fc1",
            ),
            "text_encoder_2.encoder_layers_1_mlp_fc1",
        ),
        (
            (
                "conv_in",
                "unet.conv_in",
                "unet.unet.conv_in",
                "base_model.model.conv_in",
                "base_model.model.unet.conv_in",
                "diffusion_model.conv_in",
                "diffusion_model.input_blocks.0.0",
                "model.diffusion_model.input_blocks.0.0",
                "input_blocks.0.0",
                "lora_unet_conv_in",
                "lora_unet_input_blocks_0_0",
                "lycoris_conv_in",
            ),
            "unet.conv_in",
        ),
        (
            (
                f"{ATTENTION}.to_out.0",
                f"unet.{ATTENTION}.processor.to_out_lora",
                f"unet.{ATTENTION}.to_out_lora",
                f"unet.unet.{ATTENTION}.to_out.0",
                "diffusion_model.middle_block.1.attn1.to_out.0",
                f"lora_unet_{ATTENTION.replace('.', '_')}_to_out_0",
                f"lora_unet_{ATTENTION.replace('.', '_')}_processor_to_out_lora",
            ),
            "unet.mid_block_attentions_0_attn1_to_out_0",
        ),
        *(
            (
                (
                    f"text_encoder.text_model.encoder.layers.0.self_attn.to_{which}_lora",
                    f"lora_te_text_model_encoder_layers_0_self_attn_{which}_proj",
                ),
                f"text_encoder.encoder_layers_0_self_attn_{which}_proj",
            )
            for which in ("q", "k", "v", "out")
        ),
    ],
)
def test_names_of_one_layer_become_one(names, flat):
    assert {flat_layer_name(name) for name in names} == {flat}
    assert {split_layer_name(name)[0] for name in names} == {flat.partition(".")[0]}
    for name in names:
        dotted = dotted_layer_name(name)
        assert (dotted is None) == ("." not in name and name.startswith(("lora_", "lycoris_")))
        if dotted is not None:
            component = flat.partition(".")[0]
            assert flat_layer_name(f"{component}.{dotted.removeprefix(f'{component}.')}") == flat


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".alpha",
        ".lora_A.weight",
        "_lora.down.weight",
        "x.lora_A",
        "x.lora_C.weight",
        "x.lora_A.two.parts.weight",
        "lora_unet_a.b.lora_down.weight",
        "lora_clip_x.lora_up.weight",
        "x.lora_A.weight\n",
    ],
)
def test_a_name_of_no_convention_is_no_part(name):
    assert tensor_name(name) is None


def test_peft_speaks_of_a_component_that_it_has_wrapped_with_the_rest():
    """Its patterns are matched against that name."""
    assert dotted_layer_name("base_model.model.unet.conv_in") == "unet.conv_in"
    assert dotted_layer_name("base_model.model.conv_in") == "conv_in"
    assert dotted_layer_name("unet.conv_in") == "conv_in"


@pytest.mark.parametrize("name", ["unet.x.lora_{}.weight", "x.lora_{}.my_style.weight"])
def test_a_tensor_of_peft_is_read_whatever_its_adapter_is_called(name: str):
    for letter, part in (("A", "down"), ("B", "up")):
        meaning = tensor_name(name.format(letter))
        assert meaning is not None
        assert (meaning.layer, meaning.part) == (name.partition(".lora")[0], part)


def test_one_adapter_is_read_and_two_in_a_file_are_refused():
    one = ["conv_in.lora_A.my_style.weight", "conv_in.lora_B.my_style.weight"]
    assert {name.layer for name in tensor_names("x.safetensors", one).values()} == {"conv_in"}
    with pytest.raises(LoraFileError, match="of 2 adapters \\('my_style', 'other'\\), and a LoRA"):
        tensor_names("x.safetensors", [*one, "conv_out.lora_A.other.weight"])


@pytest.mark.parametrize("level", ["", "text_model."])
def test_the_second_text_encoder_is_found_by_every_name(level: str):
    """Its projection has no level above it, whatever transformers' version does with the rest."""
    layer = "encoder.layers.0.self_attn.q_proj"
    names = [f"{level}{layer}", "text_projection"]
    model = ModelLayers({"text_encoder_2": dict.fromkeys(names, (4, 4))})
    for ours, written in zip(names, (f"text_model.{layer}", "text_projection"), strict=True):
        for prefix in ("text_encoder_2.", "text_encoders.clip_g.transformer.", "lora_te2."):
            assert model.find(f"{prefix}{written}") == ("text_encoder_2", ours)
        assert model.find(f"lora_te2_{written.replace('.', '_')}") == ("text_encoder_2", ours)
