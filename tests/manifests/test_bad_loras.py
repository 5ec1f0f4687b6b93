"""Every bad LoRA file of the corpus is refused with a sentence that names it and says why."""

from pathlib import Path

import numpy as np
import pytest
from bad_file import BadFile
from bad_loras import DOTTED, bad_files, good, ones
from input_kit import raw_bytes, safetensors_bytes

from clora_core.recipe.errors import LoraFileError
from manifests.loras.about.report import lora_report
from manifests.loras.catalog import LoraEntry
from manifests.loras.file import inspect_lora_file
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit

CORPUS = bad_files()


def test_the_corpus_is_large_and_every_file_in_it_another():
    assert len(CORPUS) >= 150
    assert len({bad.name for bad in CORPUS}) == len(CORPUS)
    assert len({bad.content for bad in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("bad", CORPUS, ids=lambda bad: bad.name)
@pytest.mark.parametrize("look", [inspect_lora_file, lora_report])
def test_a_bad_file_is_refused_with_its_name_and_the_reason(tmp_path: Path, bad: BadFile, look):
    path = tmp_path / f"{bad.name}.safetensors"
    path.write_bytes(bad.content)
    with pytest.raises(LoraFileError) as caught:
        look(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert bad.words in sentence
    assert len(sentence.removeprefix(str(path))) < 500
    assert "\n" not in sentence
    assert sentence.isprintable()


SD1, SD2, XL = 768, 1024, 2048
DEEP = "input_blocks.4.1.transformer_blocks.1"
TEXT = "text_model.encoder.layers.0"
CROSS = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


def layer(name: str, width: int) -> dict[str, np.ndarray]:
    return {f"{name}.lora_down.weight": ones(4, width), f"{name}.lora_up.weight": ones(8, 4)}


@pytest.mark.parametrize(
    ("tensors", "model_width", "words"),
    [
        (layer(CROSS, XL), SD1, "is made for SDXL (cross-attention width 2048) and its row's"),
        (layer(CROSS, SD1), XL, "is made for SD1.x (cross-attention width 768) and its row's"),
        (layer(CROSS, SD2), SD1, "is made for SD2.x"),
        (layer(CROSS, 96), SD1, "is made for another family (cross-attention width 96)"),
        (layer("lora_te2_text_model_encoder_layers_0_mlp_fc1", 8), SD1, "is made for SDXL and"),
        (layer("lora_unet_input_blocks_4_1_proj_in", 640), SD1, "is made for SDXL and"),
        (layer("lora_unet_input_blocks_4_1_proj_in", 640), 96, "is made for SDXL and"),
        (layer("diffusion_model.label_emb.0.0", 2816), SD1, "is made for SDXL and"),
        (layer(f"diffusion_model.{DEEP}.attn1.to_q", 640), SD1, "is made for SDXL and"),
        (layer(f"clip_g.transformer.{TEXT}.mlp.fc1", 1280), SD1, "is made for SDXL and"),
        (layer(f"text_encoders.clip_h.transformer.{TEXT}.self_attn.q_proj", 1024), SD1, "for SD2"),
        (layer("lora_unet_double_blocks_0_img_attn_qkv", 3072), SD1, "is made for FLUX and"),
        (layer("lora_unet_double_blocks_0_img_attn_qkv", 3072), XL, "is made for FLUX and"),
        (layer("lora_unet_joint_blocks_0_x_block_attn_qkv", 1536), XL, "is made for SD3 and"),
        (layer("lora_transformer_blocks_0_attn_to_q", 64), SD1, "other transformer and"),
        (layer("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768), SD2, "for SD1.x and"),
        (layer("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 1024), SD1, "SD2.x and"),
    ],
)
def test_a_lora_of_another_family_is_refused_with_both_families(
    tmp_path: Path, tensors, model_width: int, words: str
):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(tensors))
    entry = LoraEntry(name="x", uri=str(path), subject="cat")
    state = LoraFiles().state(entry, LoraFit(model_width=model_width))
    assert state.problem is not None
    assert words in state.problem
    assert str(path) in state.problem
    assert "use a LoRA or a base model of the same family" in state.problem
    assert state.digest.startswith("broken:")


@pytest.mark.parametrize(
    "tensors",
    [
        layer("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 768),
        layer("lora_unet_mid_block_attentions_0_proj_in", 320),
        layer("lora_unet_input_blocks_1_1_proj_in", 320),
        layer("diffusion_model.input_blocks.4.1.proj_in", 640),
        good("bare"),
    ],
)
def test_what_names_and_shapes_leave_open_is_no_reason_to_refuse(tmp_path: Path, tensors):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(tensors))
    assert inspect_lora_file(path).family == "unknown"


@pytest.mark.parametrize("length", [640, 896, 1152, 1408, 66_176])
def test_a_header_whose_length_looks_like_a_pickle_is_no_pickle(tmp_path: Path, length: int):
    """The first two bytes of these lengths are the start of a pickle."""
    content = safetensors_bytes(good())
    end = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw_bytes(content[8:end].ljust(length), content[end:]))
    assert path.read_bytes()[:2] in {b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"}
    assert inspect_lora_file(path).num_layers == 1


def test_a_header_with_very_many_names_is_judged_at_once(tmp_path: Path):
    """Looking for the repeated one among them must not take the square of their number."""
    names = ",".join(f'"{number}":0' for number in range(300_000))
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw_bytes(f'{{{names},"299999":0}}'.encode(), b"ab"))
    with pytest.raises(LoraFileError, match="'299999' is given twice"):
        inspect_lora_file(path)
    path.write_bytes(raw_bytes(f"{{{names}}}".encode(), b"ab"))
    with pytest.raises(LoraFileError, match="300,000 tensors and a LoRA has at most 100,000"):
        inspect_lora_file(path)


def test_bfloat16_values_that_are_not_finite_are_seen(tmp_path: Path):
    down, up = f"unet.{DOTTED}.lora_A.weight", f"unet.{DOTTED}.lora_B.weight"
    content = safetensors_bytes({down: ones(4, 96), up: ones(8, 4)})
    path = tmp_path / "x.safetensors"
    text = content[8 : 8 + int.from_bytes(content[:8], "little")].replace(b"F16", b"BF16")
    data = np.full(4 * 96 + 8 * 4, 0x3F80, "<u2")  # ones
    path.write_bytes(raw_bytes(text, data.tobytes()))
    assert lora_report(path).ranks == (4,)
    data[5] = 0x7FC0  # a NaN
    path.write_bytes(raw_bytes(text, data.tobytes()))
    with pytest.raises(LoraFileError, match="not finite"):
        inspect_lora_file(path)


def test_a_copy_without_layers_in_open_clips_spelling_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    stem = "lora_te2_transformer_resblocks_0_attn_in_proj"
    tensors = layer(CROSS, XL) | layer(stem, XL)
    Path("cat.safetensors").write_bytes(safetensors_bytes(tensors))
    with pytest.raises(LoraFileError, match=r"without the tensors .* 'What is refused' in docs"):
        inspect_lora_file("cat.safetensors")
    page = (Path(__file__).parents[2] / "docs/loras.md").read_text()
    lines = page.partition("in OpenCLIP's spelling.\n")[2].partition("```python\n")[2]
    exec(lines.partition("```")[0], {})  # noqa: S102, lines of this project
    assert inspect_lora_file("cat-unet.safetensors").num_layers == 1
