"""Files of other kinds than LoRA: what does something else has another identity."""

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from input_kit import adapter_config
from safetensors.torch import save_file
from torch import Tensor, nn

from clora_core.diffusion.model import load_base_model
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.errors import LoraFileError
from emoji_world import base_model_dir
from manifests.loras.about.report import LoraReport, lora_report
from manifests.loras.catalog import LoraEntry
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.weights.model_layers import model_layers

DOTTED = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
FLAT = DOTTED.replace(".", "_")
SIDES = (144, 144)
"""Of the layer's weight in the embedded world."""

OFT = {
    "r": 0, "oft_block_size": 4, "coft": False, "eps": 0.1, "block_share": False,
    "use_cayley_neumann": True, "num_cayley_neumann_terms": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def components() -> Mapping[str, nn.Module]:
    return load_base_model(base_model_dir()).components


def random(*shape: int, spread: float = 0.1) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(1))


def peft_folder(folder: Path, kind: str, tensors: Mapping[str, Tensor], **settings: Any) -> Path:
    """Write what peft's `save_pretrained` leaves, of one layer."""
    folder.mkdir()
    path = folder / "adapter_model.safetensors"
    save_file({f"base_model.model.{DOTTED}.{part}": t for part, t in tensors.items()}, path)
    config = json.loads(adapter_config(4, 4)) | {"peft_type": kind} | settings
    path.with_name("adapter_config.json").write_text(json.dumps(config))
    return path


def difference(path: Path, components: Mapping[str, nn.Module]) -> Tensor:
    lora = read_lora(path, lora_targets(components))
    [update] = lora.of("unet").values()
    made = update.applied(components["unet"].get_submodule(DOTTED), torch.float64).matrix()
    assert made is not None
    return made


def all_differ(reports: list[LoraReport], made: list[Tensor]) -> bool:
    """Return whether no two do the same, and no two are taken for the same."""
    return (
        all(float((one - other).norm()) > 1e-4 for one, other in combinations(made, 2))
        and len({report.info.digest for report in reports}) == len(reports)
        and len({report.fingerprint for report in reports}) == len(reports)
    )


def test_pefts_settings_of_a_rotation_are_part_of_its_identity(components, tmp_path):
    blocks = {"oft_R.weight": random(36, 6, spread=0.4)}
    changes: list[dict[str, Any]] = [
        {},
        {"use_cayley_neumann": False},
        {"num_cayley_neumann_terms": 2},
        {"num_cayley_neumann_terms": 7},
        {"coft": True},
        {"coft": True, "eps": 0.2},
    ]
    paths = [
        peft_folder(tmp_path / str(number), "OFT", blocks, **(OFT | change))
        for number, change in enumerate(changes)
    ]
    assert all_differ(
        [lora_report(path) for path in paths], [difference(path, components) for path in paths]
    )
    # Without a limit it is no matter what it would be.
    same = peft_folder(tmp_path / "same", "OFT", blocks, **(OFT | {"eps": 0.5}))
    assert lora_report(same).info.digest == lora_report(paths[0]).info.digest


def test_pefts_alpha_of_two_whole_factors_is_part_of_their_identity(components, tmp_path):
    factors = {"lokr_w1": random(12, 12), "lokr_w2": random(12, 12, spread=1.0)}
    paths = [
        peft_folder(tmp_path / f"{r}-{alpha}", "LOKR", factors, r=r, alpha=alpha)
        for r, alpha in ((64, 32), (64, 96), (16, 32))
    ]
    reports = [lora_report(path) for path in paths]
    assert [report.scales for report in reports] == [(0.5,), (1.5,), (2.0,)]
    assert all_differ(reports, [difference(path, components) for path in paths])
    named = peft_folder(
        tmp_path / "named", "LOKR", factors, r=8, alpha=32, rank_pattern={"attn1.to_q": 64}
    )
    assert lora_report(named).info.digest == reports[0].info.digest
    torch.testing.assert_close(difference(named, components), difference(paths[0], components))


def test_a_rank_that_only_an_expression_gives_to_whole_factors_is_refused(components, tmp_path):
    factors = {"lokr_w1": random(12, 12), "lokr_w2": random(12, 12)}
    path = peft_folder(tmp_path / "x", "LOKR", factors, r=8, alpha=4, rank_pattern={"to_.": 4})
    assert lora_report(path).scales == (1.0,)  # a dot is a plain name's
    path = peft_folder(tmp_path / "y", "LOKR", factors, r=8, alpha=4, rank_pattern={"to_[q]": 4})
    for look in (lora_report, lambda file: read_lora(file, lora_targets(components))):
        with pytest.raises(LoraFileError, match="by a pattern that is no plain name"):
            look(path)


@pytest.mark.parametrize("alpha", [0.0, 0.001])
def test_a_bound_means_another_thing_to_each_tool(components, tmp_path, alpha):
    """Of 0 kohya's own rotation does nothing at all, and the others turn without a bound."""
    tensors = {"oft_blocks": random(12, 12, 12), "alpha": torch.tensor(alpha)}
    found: dict[str, tuple[str, Tensor]] = {}
    for prefix in (f"lora_unet_{FLAT}", f"oft_unet_{FLAT}", f"diffusion_model.{DOTTED}"):
        path = tmp_path / f"{prefix}.safetensors"
        save_file({f"{prefix}.{part}": tensor for part, tensor in tensors.items()}, path)
        found[prefix[:4]] = lora_report(path).fingerprint, difference(path, components)
    assert len({mark for mark, _ in found.values()}) == 3
    sizes = {name: float(made.norm()) for name, (_, made) in found.items()}
    if alpha:  # ComfyUI's is not multiplied by the number of outputs
        assert sizes["oft_"] == pytest.approx(sizes["lora"], rel=1e-5)
        assert sizes["diff"] < sizes["lora"] / 50
    else:
        assert sizes["oft_"] < 1e-6 < 0.1 < sizes["lora"]
        assert sizes["diff"] == pytest.approx(sizes["lora"])


@pytest.mark.parametrize("alpha", [float("inf"), float("nan"), 1e10, 3.0])
def test_an_alpha_of_two_whole_factors_says_nothing(components, tmp_path, alpha):
    """ai-toolkit sets rank and alpha to 9,999,999,999, which is infinite in half precision."""
    tensors = {"lokr_w1": random(12, 12), "lokr_w2": random(12, 12)}
    path, plain = (tmp_path / f"{name}.safetensors" for name in ("alpha", "plain"))
    for file, given in ((path, tensors | {"alpha": torch.tensor(alpha)}), (plain, tensors)):
        save_file({f"lora_unet_{FLAT}.{part}": t.half() for part, t in given.items()}, file)
    fit = LoraFit(layers=model_layers(base_model_dir()))
    state = LoraFiles().state(LoraEntry(name="x", uri=str(path), subject="cat"), fit)
    assert state.problem is None
    assert lora_report(path).scales == ()
    assert lora_report(path).fingerprint == lora_report(plain).fingerprint
    torch.testing.assert_close(difference(path, components), difference(plain, components))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_alpha_of_eight_bits_is_the_number_that_torch_reads(tmp_path, dtype):
    every = torch.arange(256, dtype=torch.uint8).view(dtype)
    finite = every[torch.isfinite(every.float())]
    tensors: dict[str, Tensor] = {}
    for number, alpha in enumerate(finite):
        layer = f"lora_unet_down_blocks_0_attentions_{number}_proj_in"
        tensors |= {f"{layer}.lora_down.weight": random(4, 8), f"{layer}.alpha": alpha.clone()}
        tensors[f"{layer}.lora_up.weight"] = random(8, 4)
    path = tmp_path / "alphas.safetensors"
    save_file(tensors, path)
    report = lora_report(path)
    assert np.allclose(report.alphas, sorted(set(finite.float().tolist())), rtol=1e-6, atol=0)
