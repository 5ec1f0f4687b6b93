"""Adapters of every kind in the bank, layer by layer, against layers with them folded in."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.core_runs import Core, relative
from oracles.every_kind import KINDS, EveryKind, own_output
from torch import nn

import emoji_world
from clora_core.lora.bank import LoraBank
from clora_core.lora.gate import Gate
from clora_core.lora.layer_choice import layer_ratios

SIDE = 4
"""Of the latents."""


@pytest.fixture(scope="module")
def core():
    return Core(emoji_world.base_model_dir())


@pytest.fixture(scope="module")
def adapters(core, tmp_path_factory):
    return EveryKind(tmp_path_factory.mktemp("adapters"), core)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def input_of(name, module, lanes, side=SIDE):
    """What the layer may see: a picture, its positions in a row, or a time step."""
    if isinstance(module, nn.Conv2d):
        return random(lanes, module.in_channels, side, side, seed=1)
    if isinstance(module, nn.GroupNorm):
        return random(lanes, module.num_channels, side, side, seed=1)
    width = module.weight.shape[-1]
    if "time" in name:
        return random(lanes, width, seed=1)
    return random(lanes, side * side, width, seed=1)


def run(module, bank, weights, x):
    with bank.attached():
        bank.use(weights)
        return module(x)


# ------------------------------------------------------------------------------ weights by lane


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_its_difference_times_the_weight_in_every_lane(core, adapters, kind):
    """In the output and in the gradient at the input; a lane of 0 is the base bit for bit."""
    adapter, weights = adapters[kind], torch.tensor([[1.0], [0.0], [0.5], [-0.7]]).double()
    for component in {component for component, _ in adapter.effects}:
        bank = LoraBank(core.model.components[component], [adapter.factors], component)
        for (where, name), effect in adapter.effects.items():
            if where != component:
                continue
            module = core.model.components[component].get_submodule(name)
            x = input_of(name, module, 4).requires_grad_()
            found, base = run(module, bank, weights, x), module(x)
            by = weights.view(-1, *(1,) * (base.ndim - 1))
            expected = base + by * (own_output(module, effect, x) - base)
            assert relative(found, expected) < 1e-12
            assert torch.equal(found[1], base[1])
            ramp = random(*found.shape, seed=2)
            gradients = [torch.autograd.grad((y * ramp).sum(), x)[0] for y in (found, expected)]
            assert relative(*gradients) < 1e-12


WEIGHT = st.sampled_from([0.0, 0.0, 1.0, 0.5, -0.7, 1.3])
LAYERS = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.0.downsamplers.0.conv",
)
"""Of which all kinds but that of norms know."""


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_mix_of_kinds_in_any_lane_is_the_weighted_sum_of_differences(core, adapters, data):
    name = data.draw(st.sampled_from(LAYERS))
    mixed = st.lists(st.sampled_from(KINDS), min_size=1, max_size=5)
    loras = [adapters[kind] for kind in data.draw(mixed)]
    lane = st.lists(WEIGHT, min_size=len(loras), max_size=len(loras))
    weights = torch.tensor(data.draw(st.lists(lane, min_size=1, max_size=4))).double()
    module = core.model.unet.get_submodule(name)
    x = input_of(name, module, len(weights))
    bank = LoraBank(core.model.unet, [lora.factors for lora in loras], "unet")
    base = module(x)
    expected = base.clone()
    for column, lora in enumerate(loras):
        effect = lora.effects.get(("unet", name))
        if effect is not None:
            by = weights[:, column].view(-1, *(1,) * (base.ndim - 1))
            expected = expected + by * (own_output(module, effect, x) - base)
    found = run(module, bank, weights, x)
    assert relative(found, expected) < 1e-12
    untouched = ~(weights != 0).any(dim=1)
    assert torch.equal(found[untouched], base[untouched])


# -------------------------------------------------------------------------- weights by position


IN_UNET = (
    "conv_in",
    "conv_out",
    "time_embedding.linear_1",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.norm1",
    "down_blocks.1.resnets.0.time_emb_proj",
    "down_blocks.1.attentions.0.norm",
    "down_blocks.1.attentions.0.proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.0.norm1",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj",
    "up_blocks.0.upsamplers.0.conv",
)


@pytest.fixture(scope="module")
def bank_of_all(core, adapters):
    return LoraBank(core.model.unet, [adapters[kind].factors for kind in KINDS], "unet")


def gated_sum(module, adapters, name, x, by_position):
    """The layer's output, each kind's difference at each position by its own weight.

    Args:
        module: The layer.
        adapters: Of all kinds.
        name: Of the layer.
        x: Its input.
        by_position: Weights [lane, kind, position], positions in a row; or one for all.
    """
    base = module(x)
    total = base.clone()
    for column, kind in enumerate(KINDS):
        effect = adapters[kind].effects.get(("unet", name))
        if effect is None:
            continue
        difference = own_output(module, effect, x) - base
        has_maps = isinstance(module, nn.Conv2d | nn.GroupNorm)
        for lane, by in enumerate(by_position[:, column]):
            if has_maps:
                total[lane] += difference[lane] * by.view(-1, *difference.shape[2:])
            else:
                total[lane] += difference[lane] * (by if base.ndim == 2 else by[:, None])
    return total


@pytest.mark.parametrize("elsewhere", [False, True], ids=["everywhere", "in blocks"])
@pytest.mark.parametrize("name", IN_UNET)
def test_a_gate_mixes_all_kinds_at_every_position(core, adapters, bank_of_all, name, elsewhere):
    module = core.model.unet.get_submodule(name)
    masks = random(2, 3, SIDE, SIDE, seed=3).softmax(dim=1)
    weights = random(2, 3, len(KINDS), seed=4)
    weights[0, :, ::3] = 0  # a lane without some of them
    plain = random(2, len(KINDS), seed=5) if elsewhere else None
    x = input_of(name, module, 2)
    found = run(module, bank_of_all, Gate(masks, weights, plain), x)
    if plain is not None and ".transformer_blocks." not in name:
        by_position = plain[:, :, None]
    elif x.ndim == 2:
        by_position = torch.einsum("lp,lpk->lk", masks.mean(dim=(2, 3)), weights)[:, :, None]
    else:
        pooled = masks
        if found.ndim == 4 and found.shape[2] != SIDE:
            pooled = masks.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(4, 5))
        by_position = torch.einsum("lphw,lpk->lkhw", pooled, weights).flatten(start_dim=2)
    expected = gated_sum(module, adapters, name, x, _spread(by_position, found))
    assert relative(found, expected) < 1e-12
    assert relative(module(x), expected) > 1e-3


def _spread(by_position, output):
    if by_position.shape[2] > 1 or output.ndim == 2:
        return by_position
    num_positions = output[0, 0].numel() if output.ndim == 4 else output.shape[1]
    return by_position.expand(-1, -1, num_positions)


def test_a_norm_of_positions_in_a_row_is_gated_as_that_of_a_picture(core, bank_of_all):
    """As diffusers' attention norms what it sees: channels first, and no sides."""
    module = core.model.unet.get_submodule("down_blocks.1.attentions.0.norm")
    gate = Gate(random(2, 3, SIDE, SIDE, seed=3).softmax(dim=1), random(2, 3, len(KINDS), seed=4))
    picture = random(2, module.num_channels, SIDE, SIDE, seed=1)
    expected = run(module, bank_of_all, gate, picture)
    found = run(module, bank_of_all, gate, picture.flatten(start_dim=2))
    assert relative(found, expected.flatten(start_dim=2)) < 1e-14
    assert relative(module(picture), expected) > 1e-3


# ------------------------------------------------------------------------------- K-LoRA's choice


def test_k_lora_measures_whole_differences_of_any_kind(core, adapters):
    """S counts the largest entries, as many as the product of both ranks; gamma all of them."""
    content, style = adapters["LoKr"], adapters["DoRA"]
    bank = LoraBank(core.model.unet, [content.factors, style.factors], "unet")
    found = layer_ratios(bank, 0, 1)
    sizes = {
        name: [each.effects["unet", name].weight.abs().flatten() for each in (content, style)]
        for _, name in content.effects
        if ".attn" in name
    }
    rank = 2 * 4
    gamma = sum(float(a.sum() / b.sum()) for a, b in sizes.values()) / len(sizes)
    expected = {
        name: float(a.sort().values[-rank:].sum() / b.sort().values[-rank:].sum()) / gamma
        for name, (a, b) in sizes.items()
    }
    assert len(found) == 3
    assert found == pytest.approx(expected, rel=1e-9)


# --------------------------------------------------------------------- where and in what numbers


def packed_tensors(value):
    """All tensors of what a bank has made, whose layers and files' updates are not its own."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from packed_tensors(each)
    elif not isinstance(value, nn.Module) and hasattr(value, "__dict__"):
        for name, each in vars(value).items():
            if name != "_updates":
                yield from packed_tensors(each)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bank_is_where_its_layers_are_whatever_the_cache_is_on(core, adapters, kind):
    unet = copy.deepcopy(core.model.unet).to("meta")
    bank = LoraBank(unet, [adapters[kind].factors], "unet")
    found = list(packed_tensors(bank))
    assert len(found) >= bank.num_layers > 0
    assert {tensor.device.type for tensor in found} == {"meta"}
    deltas = [each.values for _, (each,) in bank.deltas(0)]
    assert {tensor.device.type for tensor in deltas} == ({"meta"} if kind != "norms" else set())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_half_precision_a_kind_is_about_as_exact_as_its_difference_merged(
    in_half, singles, kind, dtype
):
    adapter, unet = singles[kind], in_half[dtype]
    bank = LoraBank(unet, [adapter.factors], "unet")
    some = [name for component, name in adapter.effects if component == "unet"][::2]
    for name in some:
        effect, module = adapter.effects["unet", name], unet.get_submodule(name)
        x = input_of(name, module, 2).to(dtype)
        precise = copy.deepcopy(module).double()
        expected = own_output(precise, effect, x.double())
        merged = own_output(module, effect, x)
        found = run(module, bank, torch.ones(2, 1), x)
        assert found.dtype == dtype
        assert relative(found, expected) < 1.7 * relative(merged, expected)


@pytest.fixture(scope="module")
def in_half(core):
    halves = (torch.float16, torch.bfloat16)
    return {dtype: copy.deepcopy(core.model.unet).to(dtype) for dtype in halves}


@pytest.fixture(scope="module")
def singles(core, tmp_path_factory):
    return EveryKind(tmp_path_factory.mktemp("singles"), core, "F32")
