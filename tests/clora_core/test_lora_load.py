"""LoRA files: every format is read whole, and whatever is wrong is refused by the file's name."""

import json
import re

import pytest
import torch
from diffusers import UNet2DConditionModel
from oracles.tiny_loras import read_weights
from oracles.tiny_models import TEXT_WIDTH
from safetensors.torch import save_file

from clora_core.diffusion.model import load_base_model
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError
from clora_core.recipe.lora.placement import ModelLayers


@pytest.fixture(scope="module")
def model(tiny_sd_dir):
    return load_base_model(tiny_sd_dir)


@pytest.fixture(scope="module")
def read(model):
    targets = lora_targets(model.components)
    return lambda path: read_lora(path, targets)


@pytest.fixture
def changed(tiny_loras, tmp_path):
    """Write a copy of a LoRA file after ``change`` has had its tensors."""

    def write(change, name="peft_attention", metadata=None):
        weights = read_weights(tiny_loras[name])
        change(weights)
        path = tmp_path / "broken.safetensors"
        save_file(weights, path, metadata=metadata)
        return path

    return write


FORMATS = [
    "peft_attention",
    "peft_text",
    "kohya_linear",
    "kohya_locon",
    "kohya_text",
    "kohya_text_only",
    "diffusers_old",
    "style",
    "bare_peft",
]


@pytest.mark.parametrize("name", FORMATS)
def test_every_tensor_of_every_format_finds_its_layer(read, tiny_loras, name):
    factors = read(tiny_loras[name])
    keys = [key for key in read_weights(tiny_loras[name]) if not key.endswith(".alpha")]
    assert 2 * sum(map(len, factors.components.values())) == len(keys)


@pytest.mark.parametrize(
    ("name", "components"),
    [
        ("peft_attention", {"unet"}),
        ("bare_peft", {"unet"}),
        ("peft_text", {"unet", "text_encoder"}),
        ("kohya_text", {"unet", "text_encoder"}),
        ("kohya_text_only", {"text_encoder"}),
    ],
)
def test_a_lora_changes_the_components_it_names(read, tiny_loras, name, components):
    factors = read(tiny_loras[name])
    assert factors.components.keys() == components
    assert all(factors.of(component) for component in components)
    assert factors.of("vae") == {}


def test_sdxl_files_reach_both_text_encoders(tiny_sdxl_dir, tiny_sdxl_loras):
    model = load_base_model(tiny_sdxl_dir)
    targets = lora_targets(model.components)
    for name in ("kohya_text", "peft_text"):
        factors = read_lora(tiny_sdxl_loras[name], targets)
        assert factors.components.keys() == {"unet", "text_encoder", "text_encoder_2"}


def test_scale_is_alpha_over_rank_and_one_without_alpha(read, tiny_loras):
    def scales(name):
        components = read(tiny_loras[name]).components
        return {component: {f.scale for f in of.values()} for component, of in components.items()}

    assert scales("peft_attention") == {"unet": {1.0}}
    assert scales("kohya_linear") == {"unet": {0.5}}
    assert scales("kohya_text") == {"unet": {2.0}, "text_encoder": {0.5}}


def test_alpha_may_stand_in_diffusers_metadata(read, changed):
    told = json.dumps({"unet.lora_alpha": 2, "unet.r": 4})
    path = changed(dict.copy, metadata={"lora_adapter_metadata": told})
    assert {factor.scale for factor in read(path).of("unet").values()} == {0.5}


@pytest.mark.parametrize("told", ["{not json", "[]", "null", '{"unet.lora_alpha": null}'])
def test_metadata_of_another_kind_is_no_alpha(read, changed, told):
    path = changed(dict.copy, metadata={"lora_adapter_metadata": told})
    assert {factor.scale for factor in read(path).of("unet").values()} == {1.0}


@pytest.mark.parametrize("level", ["text_model.", ""])
def test_a_pattern_speaks_of_the_layer_as_the_file_names_it(read, changed, level):
    """Text encoders have had and lost a level; files keep the names that they were made with."""
    layer = f"{level}encoder.layers.0.self_attn.q_proj"

    def one_layer(weights):
        weights.clear()
        for half in ("A", "B"):
            shape = (4, TEXT_WIDTH) if half == "A" else (TEXT_WIDTH, 4)
            weights[f"text_encoder.{layer}.lora_{half}.weight"] = torch.ones(shape)

    settings = json.dumps({"text_encoder.alpha_pattern": {f"^{layer}$": 12}})
    path = changed(one_layer, metadata={"lora_adapter_metadata": settings})
    (factor,) = read(path).of("text_encoder").values()
    assert factor.scale == 3.0


def test_bytes_are_those_of_all_factors(read, tiny_loras):
    weights = read_weights(tiny_loras["kohya_text"])
    expected = sum(w.nbytes for key, w in weights.items() if not key.endswith(".alpha"))
    assert read(tiny_loras["kohya_text"]).num_bytes == expected


# -------------------------------------------------------------------------------- what is refused


def test_a_missing_file(read, tmp_path):
    with pytest.raises(LoraFileError, match=r"nowhere.safetensors does not exist; correct"):
        read(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, -1])
def test_a_truncated_file(read, tiny_loras, tmp_path, kept):
    content = tiny_loras["peft_attention"].read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(LoraFileError, match=r"cut.safetensors cannot be read .*truncated"):
        read(path)


def test_a_file_of_another_format(read, tmp_path):
    path = tmp_path / "old.safetensors"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(LoraFileError, match=r"old.safetensors cannot be read as safetensors"):
        read(path)


def test_a_folder(read, tmp_path):
    with pytest.raises(LoraFileError, match="cannot be read as safetensors"):
        read(tmp_path)


def test_a_file_without_tensors(read, tmp_path):
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(LoraFileError, match=r"empty.safetensors holds no tensors"):
        read(tmp_path / "empty.safetensors")


LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP = f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"


@pytest.mark.parametrize(("key", "part"), [(DOWN, "down"), (UP, "up")])
def test_a_factor_without_its_partner(read, changed, key, part):
    path = changed(lambda weights: weights.pop(key))
    with pytest.raises(
        LoraFileError,
        match=rf"broken.safetensors, layer '{LAYER}' has .* but no {part} weights",
    ):
        read(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", [DOWN, UP])
def test_values_that_are_not_finite(read, changed, key, value):
    path = changed(lambda weights: weights[key].view(-1)[3:4].fill_(value))
    with pytest.raises(LoraFileError, match=rf"broken.safetensors .* not finite in {LAYER}"):
        read(path)


def test_an_alpha_that_is_not_finite(read, changed):
    def spoil(weights):
        weights[next(key for key in weights if key.endswith(".alpha"))].fill_(float("nan"))

    with pytest.raises(LoraFileError, match="not finite"):
        read(changed(spoil, name="kohya_linear"))


def test_an_alpha_that_is_no_single_number(read, changed):
    def spoil(weights):
        weights[next(key for key in weights if key.endswith(".alpha"))] = torch.ones(2)

    with pytest.raises(
        LoraFileError, match=r"broken.safetensors, layer .* an alpha of shape \[2\]"
    ):
        read(changed(spoil, name="kohya_linear"))


def test_layers_that_have_no_place_are_counted_and_named(read, changed):
    def misspell(weights):
        for number in range(5):
            weights[f"unet.down_block.{number}.lora_A.weight"] = torch.zeros(4, 16)
            weights[f"unet.down_block.{number}.lora_B.weight"] = torch.zeros(16, 4)

    path = changed(misspell)
    total = len(read_weights(path)) // 2
    with pytest.raises(
        LoraFileError,
        match=rf"matches this base model in {total - 5} of {total} layers; there is no place for "
        r"'unet.down_block.0', 'unet.down_block.1', 'unet.down_block.2' and 2 more\. .* use a LoRA",
    ):
        read(path)


def test_a_layer_that_two_names_mean_is_refused_with_the_second(read, changed):
    """The later of the two would otherwise win, in silence."""
    second = "base_model.model." + DOWN.removeprefix("unet.")
    path = changed(lambda weights: weights.update({second: weights[DOWN].clone()}))
    with pytest.raises(LoraFileError, match=rf"one layer twice, as .*'{LAYER}'"):
        read(path)


def test_metadata_with_a_costly_pattern_refuse_the_file_by_name(read, changed):
    told = json.dumps({"unet.alpha_pattern": {"(a+)+b": 2}})
    path = changed(dict.copy, metadata={"lora_adapter_metadata": told})
    with pytest.raises(LoraFileError, match=r"broken.safetensors cannot be scaled: .*'\(a\+\)\+b'"):
        read(path)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("hada_w1_a", "has parts of several kinds (loha, lora)"),
        ("lokr_w1", "has parts of several kinds (lokr, lora)"),
        ("diff", "has parts of several kinds (difference, lora)"),
        ("rescale", "has rescale, which no lora has"),
        ("diff_b", "has a trained bias of shape [4, 4]"),
    ],
)
def test_parts_of_another_kind_beside_a_lora_are_refused(read, changed, part, words):
    path = changed(lambda weights: weights.update({f"{LAYER}.{part}": torch.zeros(4, 4)}))
    with pytest.raises(LoraFileError, match=re.escape(f"layer '{LAYER}' {words}")):
        read(path)


def test_a_magnitude_of_neither_side_is_refused(read, changed):
    path = changed(lambda weights: weights.update({f"{LAYER}.dora_scale": torch.zeros(4, 4)}))
    with pytest.raises(LoraFileError, match=r"have a magnitude of shape \(4, 4\), the base"):
        read(path)


def test_a_lora_of_another_base_model_is_refused_with_how_little_fits(read, tiny_sdxl_loras):
    with pytest.raises(LoraFileError, match=r"matches this base model in \d+ of \d+ layers"):
        read(tiny_sdxl_loras["kohya_text"])


@pytest.mark.parametrize(
    ("key", "shape"),
    [(DOWN, (4, 24)), (UP, (24, 4))],
)
def test_a_wrong_shape_is_refused_with_both_shapes(read, changed, key, shape):
    path = changed(lambda weights: weights.update({key: torch.ones(shape)}))
    with pytest.raises(
        LoraFileError,
        match=rf"broken.safetensors matches .*: factors of {LAYER} have shapes .*\(16, 16\)",
    ):
        read(path)


@pytest.mark.parametrize(("key", "shape"), [(DOWN, (5, 16)), (UP, (16, 5))])
def test_halves_of_two_ranks_are_refused(read, changed, key, shape):
    path = changed(lambda weights: weights.update({key: torch.ones(shape)}))
    with pytest.raises(LoraFileError, match=rf"layer '{LAYER}' has rank . in its down and . in"):
        read(path)


@pytest.mark.parametrize("shape", [(4,), (), (4, 16, 1), (4, 16, 3, 3)])
def test_a_factor_with_the_wrong_number_of_axes_is_refused(read, changed, shape):
    path = changed(lambda weights: weights.update({DOWN: torch.ones(shape)}))
    with pytest.raises(LoraFileError, match=rf"layer '{LAYER}' has shapes .* two dimensions"):
        read(path)


def test_two_names_of_a_layer_that_only_the_model_knows_for_one_are_refused(read, changed):
    """Blocks counted by level and counted through: neither name alone tells of the other."""
    layer = LAYER.replace("down_blocks.0", "down_blocks.1")
    flat = "lora_unet_" + layer.removeprefix("unet.").replace(".", "_")
    # The model has one layer a level, and released ones have two.
    sgm = "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q"

    def both(weights):
        down, up = weights[DOWN], weights[UP]
        weights.clear()
        for name in (flat, sgm):
            weights[f"{name}.lora_down.weight"] = down.clone()
            weights[f"{name}.lora_up.weight"] = up.clone()

    with pytest.raises(LoraFileError, match=rf"holds {layer} twice, as '.*' and '.*'; save it"):
        read(changed(both))


@pytest.mark.parametrize("size", [1, 5])
def test_a_kernel_of_another_size_is_refused(read, changed, size):
    def widen(weights):
        key = next(k for k, w in weights.items() if w.ndim == 4 and w.shape[-1] == 3)
        weights[key] = torch.ones(*weights[key].shape[:2], size, size)

    with pytest.raises(LoraFileError, match="factors of unet"):
        read(changed(widen, name="kohya_locon"))


def test_an_sd_unet_lora_does_not_pass_for_one_of_a_wider_model(tiny_loras):
    components = {
        "unet": UNet2DConditionModel(
            sample_size=32,
            block_out_channels=(32, 32, 32),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=2,
            norm_num_groups=8,
            cross_attention_dim=32,
        )
    }
    with pytest.raises(LoraFileError, match="trained for another base model"):
        read_lora(tiny_loras["peft_attention"], lora_targets(components))


def test_the_error_belongs_to_the_stage_lora():
    assert LoraFileError("").stage == "lora"


def test_a_rotation_is_scaled_where_its_file_says_yes_and_not_where_it_only_speaks_of_it(tmp_path):
    def blocks(**more: torch.Tensor) -> torch.Tensor:
        tensors = {"lora_unet_to_q.oft_R.weight": torch.tensor([[0.5], [0.25]])}
        tensors |= {f"lora_unet_to_q.oft_R.{name}": value for name, value in more.items()}
        save_file(tensors, tmp_path / "oft.safetensors")
        model = ModelLayers({"unet": {"to_q": (3, 4)}})
        return read_lora(tmp_path / "oft.safetensors", model).of("unet")["to_q"].steps

    plain = blocks()
    assert torch.equal(blocks(scaled_oft=torch.tensor(False)), plain)
    assert not torch.equal(blocks(scaled_oft=torch.tensor(True)), plain)
