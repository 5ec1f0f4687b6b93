"""The corpus's oracles agree where two trainers' code, or a loop and a library, say the same.

Where two tools differ, a test says how.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from adapters import (
    ai_toolkit_files,
    comfy_files,
    kohya_files,
    lycoris_files,
    onetrainer_files,
    peft_files,
)
from adapters.case import AdapterCase, Components, Layer, Parts
from adapters.cases import CASES, write_case
from adapters.factors import Source
from adapters.in_float64 import in_float64, trained_effect
from adapters.layers import read_components
from adapters.loops import rotated_inputs
from lycoris.modules import get_module, make_module
from lycoris.modules.full import FullModule
from lycoris.modules.locon import LoConModule
from lycoris.modules.loha import LohaModule
from lycoris.modules.lokr import LokrModule
from safetensors.torch import load_file
from torch import Tensor

NEAR = {"atol": 1e-9, "rtol": 1e-6}


@pytest.fixture(scope="session")
def components(tiny_sd_dir: Path) -> Components:
    return read_components(tiny_sd_dir)


def case_of(trainer: str, kind: str, spelling: str | None = None) -> AdapterCase:
    """Return the case for Stable Diffusion 1.5."""
    return next(
        case
        for case in CASES
        if (case.trainer, case.kind, case.family) == (trainer, kind, "sd15")
        and spelling in (None, case.spelling)
    )


def lycoris_reads(kind: str, layer: Layer, parts: Parts) -> Tensor:
    """Return the difference that LyCORIS makes of tensors that another tool has written."""
    rank = next(t.shape[0] for n, t in parts.items() if n.endswith(("down.weight", "_b")))
    case = replace(case_of("LyCORIS", kind), rank=rank)
    return lycoris_files.effect(case, layer, parts).weight


@pytest.mark.parametrize("kind", ["lora", "locon"])
def test_lycoris_reads_kohyas_files_as_the_loop_does(kind: str, components: Components):
    case = case_of("kohya sd-scripts", kind)
    for layer in kohya_files.layers(case, components):
        parts = kohya_files.parts(case, layer)
        mine = kohya_files.effect(case, layer, parts).weight
        assert torch.allclose(mine, lycoris_reads("lora scalar", layer, parts), **NEAR)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("lora", "lora scalar"),
        ("dora output", "dora output"),
        ("dora input", "dora input"),
        ("loha", "loha scalar"),
        ("lokr both", "lokr both"),
    ],
)
def test_lycoris_reads_onetrainers_files_as_the_loop_does(
    kind: str, theirs: str, components: Components
):
    case = case_of("OneTrainer", kind, "legacy")
    for layer in onetrainer_files.layers(case, components):
        parts = onetrainer_files.parts(case, layer)
        mine = onetrainer_files.effect(case, layer, parts).weight
        if kind == "loha":  # LyCORIS has them flat, also for a convolution
            parts = {name: t.flatten(1) if t.ndim else t for name, t in parts.items()}
        there = replace(case_of("LyCORIS", theirs), rank=case.rank)
        found = lycoris_files.effect(there, layer, parts).weight
        assert torch.allclose(mine, found, atol=1e-6)


def test_kohyas_oft_is_lycoris_diagonal_oft_but_for_its_names(components: Components):
    case, theirs = case_of("kohya sd-scripts", "oft"), case_of("LyCORIS", "oft constraint")
    compared = 0
    for layer in kohya_files.layers(case, components):
        number = layer.weight.shape[0] // 4  # LyCORIS never has more rows in a block than blocks
        parts = kohya_files.parts(replace(case, rank=number), layer)
        if parts["oft_blocks"].shape[1] <= number:
            mine = kohya_files.effect(case, layer, parts).weight
            other = lycoris_files.effect(replace(theirs, rank=4), layer, parts).weight
            assert torch.allclose(mine, other, atol=1e-7)
            compared += 1
    assert compared > 5


def test_comfyuis_limit_of_a_rotation_is_not_times_the_outputs(components: Components):
    case, theirs = case_of("ComfyUI", "trained oft"), case_of("LyCORIS", "oft constraint")
    for layer in comfy_files.layers(case, components):
        parts = comfy_files.parts(case, layer)
        if layer.is_norm:
            continue
        mine = comfy_files.effect(case, layer, parts).weight
        blocks = parts["oft_blocks"]
        limited = {"oft_blocks": blocks, "alpha": torch.tensor(1.0 / layer.weight.shape[0])}
        side = blocks.shape[-1]
        other = lycoris_files.effect(replace(theirs, rank=side), layer, limited).weight
        assert torch.allclose(mine, other, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("loha", "loha"),
        ("loha conv", "loha conv"),
        ("loha tucker", "loha tucker"),
        ("lokr", "lokr"),
        ("lokr conv", "lokr conv"),
        ("lokr tucker", "lokr tucker"),
        ("lora conv", "locon"),
        ("dora", "dora output"),
    ],
)
def test_lycoris_reads_pefts_files_as_peft_does(
    kind: str, theirs: str, components: Components, tmp_path: Path
):
    case = case_of("peft", kind)
    expected = write_case(tmp_path, case, components)
    read = peft_parts(case, components, expected.path)
    # Whole Kronecker factors are another matter: see the next test.
    alike = [(layer, parts) for layer, parts in read if not {"lokr_w1", "lokr_w2"} <= parts.keys()]
    assert alike
    for layer, parts in alike:
        found = lycoris_reads(theirs, layer, parts)
        assert torch.allclose(found, expected.weight[layer.place], atol=1e-6)


def test_peft_scales_whole_kronecker_factors_and_others_do_not(
    components: Components, tmp_path: Path
):
    case = case_of("peft", "lokr whole")
    expected = write_case(tmp_path, case, components)
    for layer, parts in peft_parts(case, components, expected.path):
        whole = ai_toolkit_files.effect(case, layer, parts).weight
        assert torch.allclose(0.5 * whole, expected.weight[layer.place], **NEAR)


def peft_parts(case: AdapterCase, components: Components, path: Path) -> list[tuple[Layer, Parts]]:
    """Return a folder's tensors by layer, under the names that others give them."""
    renamed = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}
    tensors, found = load_file(path), []
    for layer in peft_files.layers(case, components):
        prefix = f"base_model.model.{layer.name}."
        own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        parts = {renamed.get(name, name): tensor for name, tensor in own.items()}
        if "lora_magnitude_vector" in parts:
            parts["dora_scale"] = parts.pop("lora_magnitude_vector")[:, None]
        factored = [t for n, t in parts.items() if n.endswith(("down.weight", "_b"))]
        rank = factored[0].shape[0] if factored else 64
        found.append((layer, {**parts, "alpha": torch.tensor(rank / 2)}))
    return found


def test_pefts_rotation_of_a_linear_layer_is_onetrainers(components: Components, tmp_path: Path):
    case = case_of("peft", "oft")
    expected = write_case(tmp_path, case, components)
    tensors = load_file(expected.path)
    for layer in peft_files.layers(case, components):
        vectors = tensors[f"base_model.model.{layer.name}.oft_R.weight"].double()
        flat = layer.weight.flatten(1)  # of a convolution OneTrainer takes the transposed turn
        turned = rotated_inputs(flat, vectors, is_scaled=False).view(layer.weight.shape)
        assert torch.allclose(turned - layer.weight, expected.weight[layer.place], **NEAR)


@pytest.mark.parametrize(
    "kind", ["lora", "locon tucker", "loha", "loha tucker", "lokr", "lokr both"]
)
def test_lycoris_own_reader_finds_the_same(kind: str, components: Components):
    case = case_of("LyCORIS", kind)
    for layer in lycoris_files.layers(case, components):
        parts = lycoris_files.parts(case, layer)
        if kind == "lokr both" and ("lokr_w1" in parts) != ("lokr_w2" in parts):
            continue  # its reader makes another cut of such a layer
        mine = lycoris_files.effect(case, layer, parts).weight
        module = _their_module(layer, parts)
        assert torch.allclose(trained_effect(module, layer).weight, mine, atol=1e-6)
        _check_their_merge(module, layer, mine)


def _their_module(layer: Layer, parts: Parts) -> torch.nn.Module:
    with in_float64():
        base = lycoris_files.exact(layer.module)
        named = {f"x.{name}": tensor.double() for name, tensor in parts.items()}
        module_class, given = get_module(named, "x")
        return make_module(module_class, given, "x", base).double().requires_grad_(False)


def _check_their_merge(module: torch.nn.Module, layer: Layer, trained: Tensor) -> None:
    """Check that its merge scales LoHa and LoKr twice, which is why it is no oracle."""
    merged = module.get_diff_weight(1, layer.weight.shape)[0]
    again = module.scale if isinstance(module, LohaModule | LokrModule) else 1.0
    assert torch.allclose(merged, trained * again, atol=1e-6)


@pytest.mark.parametrize("kind", ["full", "boft", "norm", "oft rescale", "glora"])
def test_lycoris_merges_what_it_trained(kind: str, components: Components):
    case = case_of("LyCORIS", kind)
    for layer in lycoris_files.layers(case, components):
        parts = lycoris_files.parts(case, layer)
        mine = lycoris_files.effect(case, layer, parts)
        with in_float64():
            module = _their_module(layer, parts)
            merged, bias = module.get_diff_weight(1, layer.weight.shape)
        assert torch.allclose(merged, mine.weight, atol=1e-6)
        if isinstance(module, FullModule) and mine.bias is not None:
            assert torch.allclose(bias, mine.bias, atol=1e-9)


@pytest.mark.parametrize("options", [{"use_scalar": True}, {"rs_lora": True}])
@pytest.mark.parametrize("module_class", [LoConModule, LohaModule, LokrModule])
def test_the_file_says_all_of_a_scalar_and_of_a_rank_stabilised_strength(
    module_class: type[torch.nn.Module], options: dict[str, bool], components: Components
):
    names = {LoConModule: "lora scalar", LohaModule: "loha scalar", LokrModule: "lokr scalar"}
    case = case_of("LyCORIS", names[module_class])
    for layer in lycoris_files.layers(case, components)[:2]:
        base = lycoris_files.exact(layer.module)
        module = module_class("", base, lora_dim=2, alpha=1.0, factor=4, **options)
        Source(case, layer).fill(module)
        before = trained_effect(module.double(), layer)
        written = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        after = lycoris_files.effect(replace(case, rank=2), layer, written)
        assert torch.allclose(before.weight, after.weight, rtol=1e-6, atol=1e-6)
