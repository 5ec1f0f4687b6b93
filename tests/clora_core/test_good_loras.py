"""Every good LoRA file of the corpus: identified, and its output that of diffusers and peft."""

from pathlib import Path

import pytest
import torch
from good_loras import (
    ALPHA_OVER_RANK,
    GOOD_FILES,
    STABILITY,
    GoodFile,
    has_alphas,
    wanted_layers,
    write_good,
)
from oracles.core_runs import Core, relative
from oracles.peft_pipeline import activate, load_pipeline, loaded_loras
from oracles.tiny_rows import lora_use

from clora_core.lora.bank import LoraBank
from manifests.loras.about.report import LoraReport, lora_report

READ_BY_DIFFUSERS = ("kohya", "kohya bare text", "peft", "diffusers old")
"""Formats of which diffusers itself is the oracle; of the others it is the same content as peft."""

KINDS = {
    "kohya bare text": "kohya",
    "peft default": "peft",
    "bare": "peft without prefix",
    "wrapped": "peft without prefix",
    "wrapped pipeline": "peft without prefix",
    "named adapter": "peft",
    "comfyui peft": "peft",
    "unet.unet": "diffusers",
    "lycoris": "kohya",
    "kohya stability": "kohya",
    "diffusers old": "diffusers",
}


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir, "float64")


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir):
    return load_pipeline(tiny_sd_dir, dtype=torch.float64)


@pytest.fixture
def write(core: Core, tmp_path: Path):
    def write_file(file: GoodFile) -> Path:
        return write_good(tmp_path, file, core.model.components)

    return write_file


def outputs(unet, encoder, tokens):
    """Return what UNet and text encoder make of fixed inputs."""
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(1, 4, 16, 16, generator=generator, dtype=torch.float64)
    width = unet.config.cross_attention_dim
    text = torch.randn(1, 77, width, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        predicted = unet(sample, 500, encoder_hidden_states=text).sample
        states = encoder(tokens, output_hidden_states=True).hidden_states[-1]
    return predicted, states


def ours(core: Core, path: Path, tokens):
    factors = core.factors(path)
    tower = core.model.towers[0]
    image = LoraBank(core.model.unet, [factors], "unet")
    words = LoraBank(tower.encoder, [factors], tower.name)
    with image.attached(), words.attached():
        image.use(torch.ones(1, 1, dtype=torch.float64))
        words.use(torch.ones(1, 1, dtype=torch.float64))
        return outputs(core.model.unet, tower.encoder, tokens)


def diffusers_output(pipeline, path: Path, tokens):
    with loaded_loras(pipeline, [lora_use(path)]) as (name,):
        if name in getattr(pipeline.unet, "peft_config", {}):
            activate(pipeline, [(name, 1.0)])
        else:
            pipeline.set_adapters([name], [1.0])  # in the text encoder alone
        return outputs(pipeline.unet, pipeline.text_encoder, tokens)


def as_peft(file: GoodFile) -> GoodFile:
    return GoodFile("peft", file.part, file.rank, file.dtype)


def test_the_corpus_is_large_and_has_every_format():
    assert len(GOOD_FILES) >= 40
    assert len(set(GOOD_FILES)) == len(GOOD_FILES)
    assert {KINDS.get(file.format, file.format) for file in GOOD_FILES} == {
        "kohya",
        "diffusers",
        "peft",
        "peft without prefix",
        "comfyui",
    }


@pytest.mark.parametrize("file", GOOD_FILES, ids=str)
def test_a_good_file_does_what_it_does_in_diffusers(core, pipeline, write, file):
    tokens = torch.tensor([[0, 5, 9, 2, 1]])
    path = write(file)
    native = file if file.format in READ_BY_DIFFUSERS else as_peft(file)
    plain = outputs(core.model.unet, core.model.towers[0].encoder, tokens)
    expected = diffusers_output(pipeline, write(native), tokens)
    found = ours(core, path, tokens)
    for got, wanted in zip(found, expected, strict=True):
        assert relative(got, wanted) < 1e-12
    changes_image, changes_words = (
        relative(got, base) > 1e-3 for got, base in zip(found, plain, strict=True)
    )
    assert changes_image == (file.part != "only text")
    assert changes_words == ("text" in file.part)


@pytest.mark.parametrize("file", GOOD_FILES, ids=str)
def test_a_good_file_is_told_for_what_it_is(core, write, file):
    path = write(file)
    report: LoraReport = lora_report(path)
    loaded = [f for of in core.factors(path).components.values() for f in of.values()]
    assert set(report.scales) == {factor.scale for factor in loaded}
    assert set(report.ranks) == {factor.rank for factor in loaded}
    layers = wanted_layers(core.model.components, file.part)
    has_kernels = any(module.weight.shape[2:] not in ((), (1, 1)) for module in layers.values())
    kind = KINDS.get(file.format, file.format)
    assert report.info.format == kind
    assert report.info.kinds == (("LoCon",) if has_kernels else ("LoRA",))
    assert report.info.num_layers == sum(report.parts.values()) == len(layers)
    assert report.ranks == (file.rank,)
    told = ALPHA_OVER_RANK if has_alphas(file) else 1.0
    assert report.scales == (told,)
    in_text = report.parts.get("text encoder", 0)
    assert (in_text < len(layers)) == (file.part != "only text")
    assert (in_text > 0) == ("text" in file.part)


@pytest.mark.parametrize(
    "file", [file for file in GOOD_FILES if file.format not in STABILITY], ids=str
)
def test_a_good_file_is_the_same_lora_as_its_content_in_another_format(write, file):
    """Where factors are the same bits: kohya's have their scale beside, peft's folded in.

    What Stability's names mean without a model is right for released ones alone (test_sgm_names).
    """
    other = GoodFile("kohya" if has_alphas(file) else "peft", file.part, file.rank, file.dtype)
    mine = lora_report(write(file))
    assert mine.fingerprint == lora_report(write(other)).fingerprint
    stranger = GoodFile(other.format, file.part, file.rank + 1, file.dtype)
    assert mine.fingerprint != lora_report(write(stranger)).fingerprint
