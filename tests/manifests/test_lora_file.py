"""LoRA files: good ones of every format are told apart, bad ones get a sentence that says why."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_kit import kohya_tensors, raw_bytes, safetensors_bytes
from safetensors.numpy import save_file

from clora_core.recipe.errors import LoraFileError
from manifests.loras.about.report import lora_report
from manifests.loras.file import LoraFileInfo, inspect_lora_file


def pair(layer: str, down: str, up: str, *, width: int = 96, rank: int = 4) -> dict:
    return {
        f"{layer}{down}.weight": np.ones((rank, width), "f2"),
        f"{layer}{up}.weight": np.ones((8, rank), "f2"),
    }


KOHYA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
DOTTED = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def kohya(width: int = 96, layer: str = KOHYA) -> dict:
    return pair(layer, ".lora_down", ".lora_up", width=width)


def peft_own() -> dict:
    alpha = {f"base_model.model.{DOTTED}.alpha": np.array(4, "f2")}
    return pair(f"base_model.model.{DOTTED}", ".lora_A", ".lora_B") | alpha


SGM = "input_blocks.4.1.transformer_blocks.0.attn2.to_k"


def conv() -> dict:
    layer = "lora_unet_down_blocks_0_resnets_0_conv1"
    return {
        f"{layer}.lora_down.weight": np.ones((2, 8, 3, 3), "f2"),
        f"{layer}.lora_up.weight": np.ones((8, 2, 1, 1), "f2"),
    }


def inspect(tmp_path: Path, tensors: dict, name: str = "x.safetensors") -> LoraFileInfo:
    path = tmp_path / name
    path.write_bytes(safetensors_bytes(tensors))
    return inspect_lora_file(path)


def refusal(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoraFileError) as caught:
        inspect_lora_file(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 700
    return str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        (kohya(), "kohya"),
        (kohya_tensors(), "kohya"),
        (kohya() | conv(), "kohya"),
        (pair(f"unet.{DOTTED}", ".lora.down", ".lora.up"), "diffusers"),
        (pair(DOTTED.replace("to_k", "processor.to_k_lora"), ".down", ".up"), "diffusers"),
        (pair(f"unet.{DOTTED}", ".lora_A", ".lora_B"), "peft"),
        (pair(f"unet.{DOTTED}", ".lora_A.default", ".lora_B.default"), "peft"),
        (pair(f"unet.unet.{DOTTED}", ".lora.down", ".lora.up"), "diffusers"),
        (pair(f"unet.{DOTTED}", ".lora_A.my_style", ".lora_B.my_style"), "peft"),
        (pair(f"model.diffusion_model.{SGM}", ".lora_A", ".lora_B"), "peft"),
        (pair(f"diffusion_model.{SGM}", ".lora_A", ".lora_B"), "peft"),
        (pair(f"diffusion_model.{SGM}", ".lora_down", ".lora_up"), "comfyui"),
        (pair("lycoris_" + DOTTED.replace(".", "_"), ".lora_down", ".lora_up"), "kohya"),
        (pair(SGM, ".lora_A", ".lora_B"), "peft without prefix"),
        (pair(DOTTED, ".lora_A", ".lora_B"), "peft without prefix"),
        (peft_own(), "peft without prefix"),
    ],
)
def test_formats_are_told_by_their_names(tmp_path, tensors, kind):
    info = inspect(tmp_path, tensors)
    assert info.format == kind
    assert info.cross_attention_width == 96


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        (kohya(768), "SD1.x"),
        (kohya(1024), "SD2.x"),
        (kohya(2048), "SDXL"),
        (kohya(96), "unknown"),
        (kohya(96, "lora_te2_text_model_encoder_layers_0_mlp_fc1"), "SDXL"),
        (kohya(96, "lora_unet_double_blocks_0_img_attn_qkv"), "FLUX"),
        (
            pair("transformer.single_transformer_blocks.0.attn.to_k", ".lora_A", ".lora_B"),
            "FLUX",
        ),
    ],
)
def test_the_family_is_told_by_shapes(tmp_path, tensors, family):
    assert inspect(tmp_path, tensors).family == family


@pytest.mark.parametrize(
    "layer",
    [
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "lora_te_encoder_layers_0_mlp_fc1",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
    ],
)
def test_text_encoder_layers_are_counted_apart(tmp_path, layer):
    inspect(tmp_path, kohya() | kohya(layer=layer))
    assert lora_report(tmp_path / "x.safetensors").parts == {
        "UNet cross-attention": 1,
        "text encoder": 1,
    }
    inspect(tmp_path, kohya(layer=layer))
    assert lora_report(tmp_path / "x.safetensors").parts == {"text encoder": 1}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", "full checkpoint"),
        ("conv_in.weight", "whole UNet"),
        ("text_model.embeddings.token_embedding.weight", "whole text encoder"),
    ],
)
def test_other_adapters_are_refused_by_their_own_name(tmp_path, key, name):
    tensors = kohya() | {key: np.ones((2, 2), "f2")}
    assert name in refusal(tmp_path / "x.safetensors", safetensors_bytes(tensors))


def without(tensors: dict, ending: str) -> dict:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(ending)}


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (without(kohya(), "up.weight"), "has down but no up weights; the file is incomplete"),
        (without(kohya(), "down.weight"), "has up but no down weights"),
        (kohya() | {"lora_unet_x.alpha": np.ones((), "f4")}, "has alpha but no weights"),
        ({f"{KOHYA}.alpha": np.ones((), "f4")}, "holds scaling factors (alpha) and no weights"),
        (kohya() | {f"{KOHYA}.lora_up.weight": np.ones((8, 3), "f2")}, "rank 4 in its down and 3"),
        (kohya() | {f"{KOHYA}.lora_up.weight": np.ones(8, "f2")}, "both have two dimensions"),
        (
            kohya() | {f"{KOHYA}.lora_up.weight": np.ones((8, 4), "i1")},
            "is I8; floating-point numbers",
        ),
        (kohya() | {f"{KOHYA}.alpha": np.ones(3, "f4")}, "an alpha of shape [3]"),
        (kohya() | {"mystery": np.ones(3, "f4")}, "1 of 3 tensors that are no part of a LoRA"),
        (kohya() | pair(f"unet.{DOTTED}", ".lora_A", ".lora_B"), "holds one layer twice"),
        (kohya() | {f"{KOHYA}.lora_up.weight": np.full((8, 4), np.nan, "f2")}, "not finite"),
        (kohya() | {f"{KOHYA}.lora_up.weight": np.full((8, 4), np.inf, "f4")}, "not finite"),
    ],
)
def test_wrong_tensors_are_told(tmp_path, tensors, sentence):
    assert sentence in refusal(tmp_path / "x.safetensors", safetensors_bytes(tensors))


GOOD = safetensors_bytes(kohya())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty (0 bytes)"),
        (b"abc", "is truncated or not safetensors"),
        (GOOD[:-5], "is truncated: its header describes"),
        (GOOD[:100], "is truncated or not safetensors"),
        (GOOD + b"more", "holds 4 bytes after its last tensor"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b'{"error": "not found"}', "JSON text"),
        (b"PK\x03\x04" + GOOD, "zip archive or a Python pickle"),
        (b"\x80\x02}q\x00.", "is a Python pickle"),
        (b"\xff" * 8 + b"{}", "truncated or not safetensors"),
        (raw_bytes(b"nonsense", b""), "not a JSON object"),
        (raw_bytes(b"{nonsense", b""), "not valid JSON"),
        (raw_bytes(b'{"a":' + b"[" * 50_000, b""), "not valid JSON"),
        (raw_bytes(b'{"a\xff": 1}', b""), "not valid JSON"),
        (raw_bytes(b"[]", b""), "not a JSON object"),
        (raw_bytes(b"{}", b""), "holds no tensors"),
        (raw_bytes(b'{"a": 1}', b""), "not described by a JSON object"),
        (raw_bytes(b'{"a": {}, "a": {}}', b""), "'a' is given twice"),
        (raw_bytes(b'{"a": {"dtype": "F8_E9"}}', b""), "dtype 'F8_E9'"),
        (
            raw_bytes(b'{"a": {"dtype": "F16", "shape": [-1], "data_offsets": [0, 2]}}', b"ab"),
            "no valid shape",
        ),
        (
            raw_bytes(b'{"a": {"dtype": "F16", "shape": [true], "data_offsets": [0, 2]}}', b"ab"),
            "no valid shape",
        ),
        (
            raw_bytes(b'{"a": {"dtype": "F16", "shape": [9], "data_offsets": [0, 2]}}', b"ab"),
            "its shape [9] of F16",
        ),
        (
            raw_bytes(
                b'{"a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},'
                b' "b": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}',
                b"abcd",
            ),
            "overlaps the tensor before it",
        ),
        (
            raw_bytes(
                b'{"a": {"dtype": "F16", "shape": [1], "data_offsets": [2, 4]}}',
                b"abcd",
            ),
            "leaves a gap",
        ),
    ],
)
def test_broken_files_are_told(tmp_path, content, sentence):
    assert sentence in refusal(tmp_path / "x.safetensors", content)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".bin", ".pth", ".zip", ".PT"])
def test_pickles_are_refused_by_name_whatever_they_hold(tmp_path, suffix):
    assert "Python pickles, which can run code" in refusal(tmp_path / f"x{suffix}", GOOD)


def test_places_that_are_no_file_are_told(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    assert "is not a file but a folder" in refusal(tmp_path / "folder.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    assert "is not a file" in refusal(tmp_path / "pipe.safetensors")


def test_the_identity_is_of_the_tensors_and_not_of_the_file(tmp_path):
    tensors = kohya_tensors()
    plain = inspect(tmp_path, tensors)
    turned = inspect(tmp_path, dict(reversed(tensors.items())))
    path = tmp_path / "other.safetensors"
    save_file(tensors, path, metadata={"ss_output_name": "cat"})
    saved = inspect_lora_file(path)
    assert plain.digest == turned.digest == saved.digest
    assert len({plain.file_sha256, turned.file_sha256, saved.file_sha256}) == 3
    assert saved.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert inspect(tmp_path, kohya_tensors(seed=1)).digest != plain.digest
    renamed = {name.replace("to_k", "to_v"): tensor for name, tensor in tensors.items()}
    assert inspect(tmp_path, renamed).digest != plain.digest


def test_the_data_hash_is_the_one_that_galleries_show(tmp_path):
    info = inspect(tmp_path, kohya_tensors())
    content = (tmp_path / "x.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert info.data_sha256 == hashlib.sha256(content[start:]).hexdigest()


@settings(deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_a_sentence_or_a_lora_but_never_a_crash(data, tmp_path_factory):
    content = bytearray(safetensors_bytes(kohya_tensors(width=8)))
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(content) - 1))
        content[where] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(bytes(content[: data.draw(st.integers(1, len(content)))]))
    try:
        info = inspect_lora_file(path)
    except LoraFileError:
        return
    assert info.num_layers >= 1


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["F16", "dtype"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["dtype", "shape", "data_offsets", "__metadata__", f"{KOHYA}.alpha"]),
        inner,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None)  # other processes may take the machine for a while
@given(header=JUNK)
def test_any_header_is_a_sentence_or_a_lora(header, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "junk.safetensors"
    path.write_bytes(raw_bytes(json.dumps(header).encode(), b"abcd"))
    with pytest.raises(LoraFileError):
        inspect_lora_file(path)


def test_whole_differences_are_of_the_tool_whose_prefix_their_layers_have(tmp_path):
    def differences(prefix: str) -> dict[str, np.ndarray]:
        return {f"{prefix}{SGM}.diff": np.ones((8, 8), "f2")}

    assert inspect(tmp_path, differences("diffusion_model.")).format == "comfyui"
    assert inspect(tmp_path, differences("unet.")).format == "peft"
