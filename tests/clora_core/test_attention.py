"""Maps: which layers give them, and that reading them changes nothing."""

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from oracles.core_runs import Core, relative
from oracles.explicit_attention import map_layers, mean_map, stored_attention
from oracles.peft_pipeline import load_pipeline

from clora_core.diffusion.attention import (
    CapturingProcessor,
    MapCapture,
    MapLayers,
    MapsCompleteError,
    capturing,
    choose_map_layers,
    measure_cross_attention,
)
from clora_core.diffusion.model import DiffusionModel

SDXL_UNET = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


@pytest.fixture(scope="module")
def sd15():
    """Stable Diffusion 1.5's UNet without weights."""
    with torch.device("meta"):
        return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


@pytest.fixture(scope="module")
def sdxl():
    with torch.device("meta"):
        return UNet2DConditionModel(**SDXL_UNET)


def base_model(unet, *, is_xl):
    with torch.device("meta"):
        vae = AutoencoderKL()
    return DiffusionModel(unet=unet, vae=vae, towers=(), scheduler_config={}, is_xl=is_xl)


def blocks(layers):
    return [name.split(".transformer")[0] for name in layers.names]


def test_stable_diffusion_1_5_has_five_map_layers_of_16x16(sd15):
    layers = base_model(sd15, is_xl=False).map_layers()
    assert blocks(layers) == [
        "down_blocks.2.attentions.0",
        "down_blocks.2.attentions.1",
        "up_blocks.1.attentions.0",
        "up_blocks.1.attentions.1",
        "up_blocks.1.attentions.2",
    ]
    assert layers.downsampling == 4
    assert layers.map_shape(64, 64) == (16, 16)


def test_stable_diffusion_1_5_has_sixteen_cross_attentions_of_four_sizes(sd15):
    latents, text = torch.zeros(1, 4, 64, 64, device="meta"), torch.zeros(1, 77, 768, device="meta")
    lengths = measure_cross_attention(sd15, lambda: sd15(latents, 1, text))
    sizes = [round(length**0.5) for length in lengths.values()]
    assert {size: sizes.count(size) for size in set(sizes)} == {64: 5, 32: 5, 16: 5, 8: 1}
    assert all(name.endswith("attn2") for name in lengths)
    at_32 = choose_map_layers(lengths, latent_side=64, map_size=32)
    assert (len(at_32.names), at_32.downsampling) == (5, 2)


def test_sdxl_has_sixty_map_layers_of_32x32(sdxl):
    layers = base_model(sdxl, is_xl=True).map_layers()
    assert len(layers.names) == 60
    assert layers.downsampling == 4
    assert layers.map_shape(128, 128) == (32, 32)
    first = [name.split(".attentions")[0] for name in layers.names]
    assert {name: first.count(name) for name in set(first)} == {
        "down_blocks.2": 20,
        "mid_block": 10,
        "up_blocks.0": 30,
    }


def test_a_size_that_is_not_there_is_refused_with_those_that_are(sd15):
    with pytest.raises(
        ValueError, match=r"maps of 20x20; this model has \[8, 16, 32, 64\]; set map"
    ):
        base_model(sd15, is_xl=False).map_layers(20)


def test_a_model_of_small_maps_only_gives_its_largest():
    layers = choose_map_layers({"a": 64, "b": 16, "c": 64}, latent_side=16, map_size=None)
    assert layers == MapLayers(("a", "c"), 2)


def test_maps_of_other_sizes_and_shapes():
    layers = MapLayers(("a",), 4)
    assert layers.map_shape(64, 96) == (16, 24)
    assert layers.map_shape(65, 63) == (17, 16)


@pytest.mark.parametrize("model_dir", ["tiny_sd_dir", "tiny_sdxl_dir"])
def test_the_layers_are_those_of_the_oracle(request, model_dir):
    folder = request.getfixturevalue(model_dir)
    layers = Core(folder).model.map_layers()
    names, position_px = map_layers(load_pipeline(folder, dtype=torch.float64).unet)
    assert list(layers.names) == [name.removesuffix(".processor") for name in names]
    assert layers.downsampling == position_px


def test_measuring_leaves_no_hook(sd15):
    base_model(sd15, is_xl=False).map_layers()
    assert not any(module._forward_pre_hooks for module in sd15.modules())
    with pytest.raises(ZeroDivisionError):
        measure_cross_attention(sd15, lambda: 1 / 0)
    assert not any(module._forward_pre_hooks for module in sd15.modules())


# ------------------------------------------------------------------------------------- capturing


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(3, 4, 16, 24, generator=generator, dtype=torch.float64)
    return latents, 400, torch.randn(3, 77, 32, generator=generator, dtype=torch.float64)


def test_captured_maps_are_those_of_attention_written_out(core, inputs):
    unet, layers = core.model.unet, core.model.map_layers()
    with torch.no_grad():
        with capturing(unet, layers, torch.float64) as capture:
            capture.start(stop_after_maps=False)
            output = unet(*inputs).sample
            maps = capture.take()
        with stored_attention(unet) as store:
            expected = unet(*inputs).sample
    assert relative(output, expected) < 1e-14
    names = [f"{name}.processor" for name in layers.names]
    height, width = layers.map_shape(16, 24)
    for lane in range(3):
        alone = {name: store[name][lane : lane + 1] for name in names}
        looped = mean_map(alone, names, height=height, width=width, half="cond")
        assert relative(maps[lane], looped.flatten(0, 1)) < 1e-14
    assert torch.allclose(maps.sum(dim=2), torch.ones_like(maps[:, :, 0]))


def test_a_pass_that_stops_early_has_read_the_same_maps(core, inputs):
    unet, layers = core.model.unet, core.model.map_layers()
    ran = []
    last = unet.conv_out.register_forward_hook(lambda *_: ran.append("conv_out"))
    try:
        with torch.no_grad(), capturing(unet, layers, torch.float64) as capture:
            capture.start(stop_after_maps=False)
            unet(*inputs)
            whole = capture.take()
            capture.start(stop_after_maps=True)
            with pytest.raises(MapsCompleteError):
                unet(*inputs)
            assert torch.equal(capture.take(), whole)
    finally:
        last.remove()
    assert ran == ["conv_out"]


def test_after_the_maps_there_is_no_graph(core, inputs):
    unet, layers = core.model.unet, core.model.map_layers()
    latents, t, text = inputs
    leaf = latents.clone().requires_grad_()
    with capturing(unet, layers, torch.float64) as capture:
        capture.start(stop_after_maps=False)
        with torch.set_grad_enabled(True):  # puts the mode back that the capture changes
            output = unet(leaf, t, text).sample
        maps = capture.take()
    assert not output.requires_grad
    assert maps.requires_grad


def test_a_capture_that_saw_too_few_layers_says_so():
    capture = MapCapture(3, torch.float64)
    with pytest.raises(RuntimeError, match="read 0 of 3 map layers"):
        capture.take()


def test_processors_are_those_from_before_also_after_an_exception(core):
    unet, layers = core.model.unet, core.model.map_layers()
    before = dict(unet.attn_processors)
    with capturing(unet, layers, torch.float64):
        changed = [name for name, p in unet.attn_processors.items() if p is not before[name]]
        assert changed == [f"{name}.processor" for name in layers.names]
    assert unet.attn_processors == before
    with pytest.raises(ZeroDivisionError), capturing(unet, layers, torch.float64):
        raise ZeroDivisionError
    assert unet.attn_processors == before


@pytest.mark.parametrize("original", [AttnProcessor, AttnProcessor2_0])
@pytest.mark.parametrize("heads", [1, 4])
def test_the_layers_output_is_that_of_diffusers(original, heads):
    torch.manual_seed(0)
    layer = Attention(
        query_dim=32, cross_attention_dim=24, heads=heads, dim_head=32 // heads, bias=False
    ).double()
    hidden, text = torch.randn(2, 12, 32).double(), torch.randn(2, 77, 24).double()
    layer.set_processor(original())
    with torch.no_grad():
        expected = layer(hidden, encoder_hidden_states=text)
        layer.set_processor(CapturingProcessor(MapCapture(1, torch.float64)))
        found = layer(hidden, encoder_hidden_states=text)
    assert relative(found, expected) < 1e-14


def test_half_precision_maps_are_taken_in_single_precision():
    layer = Attention(query_dim=32, cross_attention_dim=24, heads=2, dim_head=16).bfloat16()
    capture = MapCapture(1, torch.float32)
    capture.start(stop_after_maps=False)
    layer.set_processor(CapturingProcessor(capture))
    hidden, text = torch.randn(2, 12, 32).bfloat16(), torch.randn(2, 77, 24).bfloat16()
    with torch.no_grad():
        output = layer(hidden, encoder_hidden_states=text)
    maps = capture.take()
    assert output.dtype == torch.bfloat16
    assert maps.dtype == torch.float32
    assert torch.allclose(maps.sum(dim=2), torch.ones(2, 12), atol=1e-6)
