"""Fused adapters as files: what diffusers makes of them is what their rows show."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import peft_pipeline as peft
from oracles.core_runs import Core
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row
from safetensors import safe_open
from safetensors.torch import load

from clora_core.composer import Composer
from clora_core.fuse.adapter_file import (
    METADATA_KEY,
    decode_adapter,
    encode_adapter,
    provenance_of,
)
from clora_core.fuse.ingredient import Ingredient, by_component
from clora_core.fuse.recipes import fuse
from clora_core.lora.cache import LoraCache
from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.plain_file import tensors_digest
from clora_core.recipe.errors import FusionError
from clora_core.recipe.row import Lora
from clora_core.results import ComposedImage, RowFailure


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir, "float32")


@pytest.fixture(scope="module")
def row(tiny_loras):
    """Two LoRAs of ranks 4 and 8 and a style; one changes the text encoder, too."""
    style = lora_use(tiny_loras["style"], kind="style", weight=0.5)
    one = two_concept_row(tiny_loras, method="custom-diffusion", sampler=tiny_sampler())
    return replace(one, loras=(*one.loras, style))


@pytest.fixture(scope="module")
def adapter(core, row):
    parts = [Ingredient(lora, core.factors(lora.uri)) for lora in row.concepts]
    return fuse(row.method, core.model, parts, row.sampler, lambda _: [])


def written(adapter, folder, naming):
    path = folder / f"{naming}.safetensors"
    path.write_bytes(encode_adapter(adapter, {"method": "m"}, naming=naming, title="two in one"))
    return path


def picture(core, row):
    (made,) = Composer(core.model, LoraCache(10**9)).compose([row])
    assert isinstance(made, ComposedImage)
    return made.image


def drawn_by_diffusers(folder, row, adapter):
    """Return the picture that a diffusers pipeline draws with the file and the row's style."""
    pipeline = peft.load_pipeline(folder)
    solver = peft.make_solver(pipeline, row)
    latents = peft.initial_latents(pipeline, row, solver)
    loras = [adapter, *(lora for lora in row.loras if lora.kind == "style")]
    with torch.no_grad(), peft.loaded_loras(pipeline, loras) as names:
        weights = [(name, lora.weight) for name, lora in zip(names, loras, strict=True)]
        peft.activate(pipeline, weights)
        text = peft.encode(pipeline, row, "a sks cat and a zwx dog", guided=True)
        for t in solver.timesteps:
            predicted = peft.predict(pipeline, solver, latents, t, text)
            noise = peft.guide(predicted, row.sampler.guidance_scale)
            latents = solver.step(noise, t, latents).prev_sample
        return peft.decode(pipeline, latents)


@pytest.mark.parametrize("naming", ["peft", "kohya"])
def test_diffusers_draws_the_same_picture_with_the_file(
    core, row, adapter, tiny_sd_dir, tmp_path, naming
):
    path = written(adapter, tmp_path, naming)
    fused = Lora(name="fused", uri=str(path), digest=naming, kind="concept")
    ours = picture(core, replace(row, fused=fused))
    theirs = drawn_by_diffusers(tiny_sd_dir, row, fused)
    assert ours.std() > 1
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize("naming", ["peft", "kohya"])
def test_a_written_adapter_reads_back_as_the_same_deltas(core, adapter, tmp_path, naming):
    read = core.factors(written(adapter, tmp_path, naming))
    assert read.components.keys() == adapter.factors.components.keys() == {"unet", "text_encoder"}
    for component, layers in adapter.factors.components.items():
        assert read.of(component).keys() == layers.keys()
        for name, factor in layers.items():
            found = read.of(component)[name]
            delta = found.up.double() @ found.down.double() * found.scale
            assert torch.allclose(delta, factor.up @ factor.down, atol=1e-5)


def test_decoding_gives_the_adapter_and_its_facts(adapter, tmp_path):
    content = written(adapter, tmp_path, "peft").read_bytes()
    decoded, facts = decode_adapter(content)
    assert facts["method"] == "m"
    assert decoded.final_loss == adapter.final_loss
    again = encode_adapter(decoded, {"method": "m"}, title="two in one")
    assert load(again).keys() == load(content).keys()
    assert provenance_of(again)["tensors_sha256"] == tensors_digest(load(content))


def test_metadata_says_what_went_in(adapter, tmp_path):
    with safe_open(written(adapter, tmp_path, "kohya"), "pt") as file:
        metadata = file.metadata()
    assert metadata["modelspec.title"] == "two in one"
    assert metadata["ss_network_dim"] == "12"
    assert json.loads(metadata[METADATA_KEY])["method"] == "m"


def test_damage_of_one_bit_changes_the_digest(adapter, tmp_path):
    tensors = load(written(adapter, tmp_path, "peft").read_bytes())
    before = tensors_digest(tensors)
    name = max(tensors)
    tensors[name].view(torch.uint8).flatten()[0] ^= 1
    assert tensors_digest(tensors) != before


def test_what_could_never_be_used_is_not_written(adapter):
    with pytest.raises(FusionError, match="change nothing that is fused"):
        encode_adapter(replace(adapter, factors=LoraFactors({})), {})
    huge = Factor(torch.full((1, 2), 1e6), torch.ones(2, 1), 1.0)
    large = replace(adapter, factors=by_component({("unet", "a"): huge}))
    encode_adapter(large, {})
    with pytest.raises(FusionError, match=r"not finite in float16, the first is unet\.a"):
        encode_adapter(large, {}, dtype=torch.float16)


def test_a_row_without_its_adapter_fails_alone(core, row):
    (made,) = Composer(core.model, LoraCache(10**9)).compose([row])
    assert isinstance(made, RowFailure)
    assert made.message == "method 'custom-diffusion' needs the row's LoRAs fused beforehand"


def test_rows_with_different_adapters_share_a_batch(core, row, adapter, tmp_path):
    path = written(adapter, tmp_path, "peft")
    one = replace(row, fused=Lora(name="a", uri=str(path), digest="a", kind="concept"))
    other = replace(
        row, seed=9, fused=Lora(name="b", uri=row.loras[0].uri, digest="b", kind="concept")
    )
    made = Composer(core.model, LoraCache(10**9)).compose([one, other])
    assert [result.diagnostics.batch_size for result in made] == [2, 2]
    for result, alone in zip(made, (one, other), strict=True):
        apart = np.abs(result.image.astype(int) - picture(core, alone).astype(int))
        assert apart.max() <= 1
