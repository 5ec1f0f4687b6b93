"""``clora loras convert``: adapters of every kind as plain LoRAs, by what a UNet makes of them."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from adapters.case import AdapterCase, Components
from adapters.cases import BY_NAME, write_case
from adapters.layers import read_components
from input_kit import safetensors_bytes
from oracles import peft_pipeline as peft
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clora_core.lora.bank import LoraBank
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.row import Lora
from jobs.cli import main
from jobs.commands.lora_files.converted_file import METADATA_KEY
from manifests.loras.file import inspect_lora_file

NEEDS_WEIGHTS = ("dora", "oft")
KINDS = (
    "lora", "locon tucker", "loha", "lokr whole", "lokr conv whole", "lokr dora input",
    "dora output", "full", "oft rescale", "boft", "glora",
)  # fmt: skip
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
PLACES = tuple(
    ("unet", name)
    for name in (
        f"{BLOCK}.attn1.to_q", f"{BLOCK}.attn2.to_k", f"{BLOCK}.ff.net.0.proj",
        "down_blocks.1.attentions.0.proj_in", "down_blocks.1.resnets.0.conv1",
        "conv_out",
    )
)  # fmt: skip


@pytest.fixture(scope="module")
def components(tiny_sd_dir: Path) -> Components:
    return read_components(tiny_sd_dir)


def written(folder: Path, kind: str, components: Components, trainer: str = "LyCORIS"):
    spelling = BY_NAME[trainer].spellings[0]
    places = tuple(p for p in PLACES if _suits(kind, components[p[0]].get_submodule(p[1])))
    case = AdapterCase(
        trainer=trainer, kind=kind, spelling=spelling, family="sd15", rank=2 if "kr" in kind else 4,
        places=places,
    )  # fmt: skip
    return write_case(folder, case, components)


def _suits(kind: str, module: nn.Module) -> bool:
    is_wide = isinstance(module, nn.Conv2d) and module.kernel_size[0] > 1
    if "conv" in kind or "locon" in kind:
        return is_wide
    return not is_wide or kind not in ("lora", "loha", "lokr whole")


def convert(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["loras", "convert", *map(str, arguments)])
    return int(ended.value.code or 0)


def account(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def drawn(components: Components, path: Path | None) -> Tensor:
    """Return what the UNet predicts with an adapter."""
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 32, 32, generator=generator)
    text = torch.randn(1, 7, 32, generator=generator)
    unet = components["unet"]
    loras = [] if path is None else [read_lora(path, lora_targets(components))]
    bank = LoraBank(unet, loras, "unet")
    bank.use(torch.ones(1, len(loras)))
    with torch.no_grad(), bank.attached():
        return unet(latents, torch.tensor(500), text).sample


def differences(components: Components, path: Path) -> Mapping[tuple[str, str], Tensor]:
    read = read_lora(path, lora_targets(components)).components
    return {
        (component, name): update.applied(
            components[component].get_submodule(name), torch.float64
        ).matrix()
        for component, layers in read.items()
        for name, update in layers.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_a_plain_lora_that_says_how_near_it_is(
    kind: str, components: Components, tiny_sd_dir: Path, tmp_path: Path
):
    expected = written(tmp_path, kind, components)
    out = tmp_path / "plain.safetensors"
    options = ["--out", out, "--rank", 6, "--leave-out", "biases"]
    assert convert(expected.path, *options, "--base-model", tiny_sd_dir) == 0
    assert set(inspect_lora_file(out).kinds) <= {"LoRA", "LoCon"}
    said, rest, size = account(out), 0.0, 0.0
    found = differences(components, out)
    assert found.keys() == expected.weight.keys()
    for place, wanted in expected.weight.items():
        wanted = wanted.flatten(1)
        layer = said["layers"][".".join(place)]
        error = float((found[place] - wanted).norm() / wanted.norm())
        assert layer["error"] == pytest.approx(error, abs=2e-6)
        if layer["is_cut"]:
            best = torch.linalg.svdvals(wanted)
            assert error == pytest.approx(float(best[6:].norm() / best.norm()), abs=2e-6)
        assert layer["rank"] <= 6
        rest += float((found[place] - wanted).square().sum())
        size += float(wanted.square().sum())
    assert said["error"] == pytest.approx((rest / size) ** 0.5, abs=2e-6)
    before, whole, plain = (drawn(components, p) for p in (None, expected.path, out))
    if kind != "full":  # whose biases are left out
        share = float((plain - whole).norm() / (whole - before).norm())
        assert share < 2 * said["error"] + 1e-4


@pytest.mark.parametrize("naming", ["kohya", "peft"])
@pytest.mark.parametrize(("trainer", "kind"), [("LyCORIS", "lokr dora input"), ("peft", "lora")])
def test_at_its_whole_rank_it_is_the_adapter_itself_in_diffusers_too(
    naming: str, trainer: str, kind: str, components: Components, tiny_sd_dir: Path, tmp_path: Path
):
    source = written(tmp_path, kind, components, trainer).path
    out = tmp_path / "plain.safetensors"
    options = ["--max-error", 0, "--naming", naming, "--base-model", tiny_sd_dir]
    assert convert(source, "--out", out, *options) == 0
    assert account(out)["error"] < 1e-6
    ours = drawn(components, source)
    assert float((ours - drawn(components, None)).abs().max()) > 1e-2
    assert torch.allclose(drawn(components, out), ours, atol=1e-4)
    pipeline = peft.load_pipeline(tiny_sd_dir)
    lora = Lora(name="a", uri=str(out), digest="a", kind="style")
    with peft.loaded_loras(pipeline, [lora]) as (name,):
        peft.activate(pipeline, [(name, 1.0)])
        theirs = drawn({"unet": pipeline.unet}, None)
        assert torch.allclose(theirs, ours, atol=1e-4)


def test_without_a_base_model_layers_keep_their_names(components: Components, tmp_path: Path):
    source = written(tmp_path, "lokr whole", components).path
    out = tmp_path / "plain.safetensors"
    assert convert(source, "--out", out) == 0
    stems = {name.split(".")[0] for name in load_file(source)}
    assert {name.split(".")[0] for name in load_file(out)} == stems
    said = account(out)
    assert said["base_model"] is None
    assert said["limits"] == {"max_rank": 128, "max_error": 0.01}
    assert all(layer["error"] <= 0.01 for layer in said["layers"].values())


@pytest.mark.parametrize("prefix", ["lora_te", "lora_te1", "lora_te2"])
def test_without_a_base_model_text_encoders_keep_their_number(prefix: str, tmp_path: Path):
    stem = f"{prefix}_text_model_encoder_layers_0_mlp_fc1"
    source, out = tmp_path / "text.safetensors", tmp_path / "plain.safetensors"
    save_file(
        {f"{stem}.lora_down.weight": torch.ones(2, 8), f"{stem}.lora_up.weight": torch.ones(16, 2)},
        source,
    )
    assert convert(source, "--out", out) == 0
    assert {name.split(".")[0] for name in load_file(out)} == {stem}


def test_what_went_in_is_in_the_metadata(
    components: Components, tiny_sd_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = written(tmp_path, "dora output", components).path
    metadata = {"ss_output_name": "my cat", "modelspec.license": "MIT", "sshs_model_hash": "0"}
    save_file(load_file(source), source, {**metadata, "ss_network_dim": "9", "lora_adapter_x": ""})
    out = tmp_path / "plain.safetensors"
    assert convert(source, "--out", out, "--rank", 3, "--half", "--base-model", tiny_sd_dir) == 0
    info, said = inspect_lora_file(source), account(out)
    assert (said["from"], said["digest"], said["kinds"]) == (source.name, info.digest, ["DoRA"])
    assert said["base_model"] == str(tiny_sd_dir)
    with safe_open(out, "pt") as file:
        kept = file.metadata()
    assert (kept["modelspec.title"], kept["modelspec.license"]) == ("my cat", "MIT")
    assert kept["ss_network_dim"] == "3"
    assert not {"sshs_model_hash", "lora_adapter_x"} & kept.keys()
    assert load_file(out)[f"lora_unet_{PLACES[0][1].replace('.', '_')}.lora_up.weight"].dtype == (
        torch.float16
    )
    told = capsys.readouterr().out
    assert f"from {source.name} (DoRA)" in told
    assert "by SVD:   6 layers, rank 3" in told
    assert f"holds on: {tiny_sd_dir} alone" in told


def test_what_has_no_place_is_named_and_left_out_only_if_one_says_so(
    components: Components, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, out = tmp_path / "all.safetensors", tmp_path / "plain.safetensors"
    lora = load_file(written(tmp_path, "lora", components).path)
    norm = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_norm1"
    more = {
        f"{norm}.w_norm": torch.ones(32),
        f"{norm}.b_norm": torch.ones(32),
        "lora_unet_conv_in.diff_b": torch.ones(16),
        "bundle_emb.toy.emb_params": torch.ones(2, 32),
    }
    save_file({**lora, **more}, source)
    assert convert(source, "--out", out) == 2
    said = capsys.readouterr().err
    assert "holds 1 trained norm and 1 trained bias and 1 embedding, which have no place" in said
    assert "--leave-out norms,biases,words" in said
    assert convert(source, "--out", out, "--leave-out", "norms,biases") == 2
    assert "which have no place" in capsys.readouterr().err
    assert not out.exists()
    assert convert(source, "--out", out, "--leave-out", "words,biases,norms") == 0
    assert "left out: 1 trained norm, 1 trained bias, 1 embedding" in capsys.readouterr().out
    assert account(out)["left_out"] == {"norms": 1, "biases": 1, "words": 1}
    assert load_file(out).keys() == lora.keys()
    save_file({**lora, "lora_unet_conv_in.diff_b": torch.ones(16)}, source)
    assert convert(source, "--out", tmp_path / "other.safetensors") == 2
    assert "holds 1 trained bias, which has no place in a plain LoRA" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "beside"),
    [("lokr whole", ""), ("lora", "w_norm"), ("lora", "diff_b"), ("dora output", "w_norm")],
)
def test_the_options_that_a_refused_row_names_make_a_lora_that_fuses(
    kind: str, beside: str, components: Components, tiny_sd_dir: Path, tmp_path: Path
):
    source, out = tmp_path / "all.safetensors", tmp_path / "plain.safetensors"
    tensors = load_file(written(tmp_path, kind, components).path)
    more = {f"lora_unet_conv_norm_out.{beside}": torch.ones(16)} if beside else {}
    save_file({**tensors, **more}, source)
    options = inspect_lora_file(source).conversion
    assert options is not None
    words = " ".join(options).replace("MODEL", str(tiny_sd_dir)).split()
    assert convert(source, "--out", out, "--rank", 2, *words) == 0
    assert not inspect_lora_file(out).not_fused


def test_what_cannot_be_converted_is_refused_with_the_way_out(
    components: Components, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out, norm = tmp_path / "plain.safetensors", tmp_path / "norm.safetensors"
    lora, dora, loha = (
        written(tmp_path, kind, components).path for kind in ("lora", "dora output", "loha scalar")
    )
    save_file({"lora_unet_conv_norm_out.w_norm": torch.ones(16)}, norm)
    for arguments, told in (
        ([dora], "depends on the base model's weights; name the base model with --base-model"),
        ([loha], "does not say whether 'lora_unet_conv_out' has a kernel"),
        ([norm], "and nothing that has a place in a plain LoRA; use the file as it is"),
        ([lora, "--naming", "peft"], "names its layers otherwise than diffusers does"),
        ([lora, "--rank", 0], "--rank: should be 1 or more, got 0"),
        ([lora, "--max-error", 1], "--max-error: should be at least 0 and below 1, got 1"),
        ([lora, "--leave-out", "norm"], "--leave-out: norm: only norms, biases, words can"),
        ([lora, "--base-model", "emoji-world"], "is made for another family"),
        ([lora, "--base-model", tmp_path / "none"], "is not a folder"),
        ([tmp_path / "none.safetensors"], "none.safetensors does not exist"),
    ):
        assert convert(*arguments, "--out", out) == 2
        assert told in capsys.readouterr().err
    assert convert(lora, "--out", tmp_path / "plain.pt") == 2
    assert "should end in .safetensors" in capsys.readouterr().err
    assert not out.exists()
    huge = tmp_path / "huge.safetensors"
    save_file({n: t * 1e6 for n, t in load_file(lora).items()}, huge)
    assert convert(huge, "--out", out, "--half") == 2
    assert "not finite in float16" in capsys.readouterr().err


def test_a_file_that_is_there_stays_unless_one_says_otherwise(
    components: Components, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source, out = written(tmp_path, "lora", components).path, tmp_path / "plain.safetensors"
    out.write_bytes(safetensors_bytes({}))
    before = out.read_bytes()
    assert convert(source, "--out", out) == 2
    assert "is there already; name another file, or replace it with --force" in (
        capsys.readouterr().err
    )
    assert out.read_bytes() == before
    assert convert(source, "--out", out, "--force") == 0
    assert load_file(out).keys() == load_file(source).keys()
