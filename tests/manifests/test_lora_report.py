"""What a person is told about a LoRA file, against the definitions of hashes, scales and names."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_kit import adapter_config, safetensors_bytes

from clora_core.recipe.errors import LoraFileError
from manifests.loras.about.report import LoraReport, lora_report
from manifests.loras.about.trainer_notes import trainer_notes

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
LAYERS = {f"{BLOCK}.attn2.to_k": (96, 32), f"{BLOCK}.attn1.to_out.0": (32, 32)}
RANK = 4


def factors(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    return {
        layer: (
            random.normal(size=(RANK, width)).astype("f4"),
            random.normal(size=(height, RANK)).astype("f4"),
        )
        for layer, (width, height) in LAYERS.items()
    }


def named(layer: str, style: str) -> tuple[str, str, str]:
    """Return the names of a layer's down, up and alpha as a tool of ``style`` writes them."""
    attention, _, projection = layer.partition(".to_")
    old = f"{attention}.processor.to_{projection.removesuffix('.0')}_lora"
    flat = "lora_unet_" + layer.replace(".", "_")
    return {
        "kohya": (f"{flat}.lora_down.weight", f"{flat}.lora_up.weight", f"{flat}.alpha"),
        "diffusers": (
            f"unet.{layer}.lora.down.weight",
            f"unet.{layer}.lora.up.weight",
            f"unet.{layer}.alpha",
        ),
        "diffusers_old": (f"unet.{old}.down.weight", f"unet.{old}.up.weight", f"unet.{old}.alpha"),
        "peft": (
            f"unet.{layer}.lora_A.weight",
            f"unet.{layer}.lora_B.weight",
            f"unet.{layer}.alpha",
        ),
        "bare": (f"{layer}.lora_A.weight", f"{layer}.lora_B.weight", f"{layer}.alpha"),
        "wrapped": (
            f"base_model.model.{layer}.lora_A.default.weight",
            f"base_model.model.{layer}.lora_B.default.weight",
            f"base_model.model.{layer}.alpha",
        ),
    }[style]


STYLES = ("kohya", "diffusers", "diffusers_old", "peft", "bare", "wrapped")


def write(
    path: Path,
    style: str,
    *,
    alpha: float | None = None,
    seed: int = 0,
    metadata: dict[str, str] | None = None,
    dtype: str = "f4",
) -> LoraReport:
    tensors: dict[str, np.ndarray] = {}
    for layer, (down, up) in factors(seed).items():
        names = named(layer, style)
        tensors[names[0]], tensors[names[1]] = down.astype(dtype), up.astype(dtype)
        if alpha is not None:
            tensors[names[2]] = np.array(alpha, "f4")
    if style == "wrapped" and alpha is None:  # peft's own, which has its strength beside it
        path = path.with_name("adapter_model.safetensors")
        path.with_name("adapter_config.json").write_text(adapter_config(RANK, RANK))
    path.write_bytes(safetensors_bytes(tensors, metadata=metadata))
    return lora_report(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("alpha", [None, 2.0, 4.0])
def test_one_lora_has_one_fingerprint_in_every_format(path, style, alpha):
    report = write(path, style, alpha=alpha)
    assert report.fingerprint == write(path, "peft", alpha=alpha or RANK).fingerprint
    assert report.scales == ((alpha or RANK) / RANK,)


def test_what_changes_a_pixel_changes_the_fingerprint(path):
    found = {
        write(path, "kohya").fingerprint,
        write(path, "kohya", seed=1).fingerprint,
        write(path, "kohya", alpha=1.0).fingerprint,
        write(path, "kohya", dtype="f2").fingerprint,
    }
    assert len(found) == 4


def test_the_digest_that_keys_use_still_tells_formats_apart(path):
    assert write(path, "kohya").info.digest != write(path, "peft").info.digest


def test_a_1x1_convolution_is_the_linear_layer_of_the_same_numbers(path):
    down, up = factors()[f"{BLOCK}.attn2.to_k"]
    names = named(f"{BLOCK}.attn2.to_k", "kohya")
    path.write_bytes(safetensors_bytes({names[0]: down, names[1]: up}))
    linear = lora_report(path).fingerprint
    wide = {names[0]: down[:, :, None, None], names[1]: up[:, :, None, None]}
    path.write_bytes(safetensors_bytes(wide))
    assert lora_report(path).fingerprint == linear


def peft_settings(**settings_: object) -> dict[str, str]:
    told = {f"unet.{name}": value for name, value in settings_.items()}
    return {"lora_adapter_metadata": json.dumps(told)}


@pytest.mark.parametrize(
    ("settings_", "scales"),
    [
        ({"lora_alpha": 2}, (0.5,)),
        ({"lora_alpha": 2, "use_rslora": True}, (1.0,)),
        ({"lora_alpha": 2, "alpha_pattern": {f"{BLOCK}.attn2.to_k": 8}}, (0.5, 2.0)),
        ({"lora_alpha": 2, "alpha_pattern": {"to_k$": 8}}, (0.5, 2.0)),
        ({"lora_alpha": 2, "alpha_pattern": {"^to_k$": 8}}, (0.5,)),
        ({"lora_alpha": "much"}, (1.0,)),
        ({"lora_alpha": 10**400}, (math.inf,)),
    ],
)
def test_a_scale_may_stand_in_the_metadata(path, settings_, scales):
    assert write(path, "peft", metadata=peft_settings(**settings_)).scales == scales


def test_a_pattern_that_is_no_name_is_told_as_one_and_never_taken_for_the_same(path):
    first = write(path, "peft", metadata=peft_settings(alpha_pattern={"to_.*": 1}))
    second = write(path, "peft", metadata=peft_settings(alpha_pattern={"to_.*": 2}))
    assert all(math.isnan(scale) for scale in first.scales)
    assert first.fingerprint != second.fingerprint


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_alpha_that_is_not_finite_is_refused(path, value):
    with pytest.raises(LoraFileError, match="not finite"):
        write(path, "kohya", alpha=value)


def test_gallery_hashes_are_those_of_their_definitions(path):
    write(path, "kohya")
    assert "AutoV1" not in lora_report(path).hashes  # the piece it is of lies behind the end
    down = np.random.default_rng(0).normal(size=(RANK, 96_000)).astype("f4")
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": np.ones((2, RANK))}
    path.write_bytes(safetensors_bytes({k: v.astype("f4") for k, v in tensors.items()}))
    content = path.read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    hashes = lora_report(path).hashes
    piece = content[0x100000:0x110000]
    assert len(piece) == 0x10000
    assert hashes["AutoV1"] == hashlib.sha256(piece).hexdigest()[:8]
    assert hashes["AutoV2"] == hashlib.sha256(content).hexdigest()[:10]
    assert hashes["AutoV3"] == hashlib.sha256(content[header_end:]).hexdigest()[:12]


def test_parts_are_counted_in_words_that_people_use(path):
    tensors = {}
    for layer, shape in {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (4, 8),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (4, 768),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v": (4, 768),
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj": (4, 8),
        "lora_unet_down_blocks_0_attentions_0_proj_in": (4, 8),
        "lora_unet_down_blocks_0_resnets_0_time_emb_proj": (4, 8),
        "lora_te_text_model_encoder_layers_0_mlp_fc1": (4, 8),
    }.items():
        tensors[f"{layer}.lora_down.weight"] = np.ones(shape, "f2")
        tensors[f"{layer}.lora_up.weight"] = np.ones((8, 4), "f2")
    path.write_bytes(safetensors_bytes(tensors))
    report = lora_report(path)
    assert list(report.parts.items()) == [
        ("UNet cross-attention", 2),
        ("UNet convolutions and time", 1),
        ("UNet feed-forward", 1),
        ("UNet projections", 1),
        ("UNet self-attention", 1),
        ("text encoder", 1),
    ]
    assert report.info.family == "SD1.x"


KOHYA = {
    "ss_output_name": "my cat v2",
    "ss_base_model_version": "sd_v1",
    "ss_sd_model_name": "v1-5.safetensors",
    "ss_tag_frequency": json.dumps(
        {"10_sks big cat": {"sks cat": 12, "grass": 3}, "1_reg": {"grass": 4}}
    ),
    "modelspec.license": "CC-BY-4.0",
}


def test_kohya_metadata_give_trigger_noun_model_and_licence():
    notes = trainer_notes(KOHYA)
    assert notes.title == "my cat v2"
    assert notes.base_model == "sd_v1 / v1-5.safetensors"
    assert notes.license == "CC-BY-4.0"
    assert (notes.trigger, notes.subject) == ("sks big", "cat")
    assert notes.tags == (("sks cat", 12), ("grass", 7))
    spoken = trainer_notes(KOHYA | {"modelspec.trigger_phrase": "sks animal"})
    assert spoken.trigger == "sks animal"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*KOHYA, "modelspec.title", "license", "ss_license"]),
        st.text() | st.sampled_from(['{"1_a b": {"x": 1e999}}', "[" * 5000, '{"a": {"b": "c"}}']),
    )
)
def test_any_metadata_become_short_lines_without_control_characters(metadata):
    notes = trainer_notes(metadata)
    texts = [notes.title, notes.license, notes.trigger, notes.subject, *(t for t, _ in notes.tags)]
    for text in texts:
        assert text is None or (0 < len(text) <= 200 and text.splitlines() == [text])
        assert text is None or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text)
