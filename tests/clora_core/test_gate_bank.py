"""The gate in the bank and in cross-attention: by loops, and where it must equal the plain bank."""

from dataclasses import replace

import pytest
import torch
from oracles.core_runs import Core
from oracles.mask_loops import loop_pooled
from oracles.tiny_rows import lora_use, two_concept_row
from torch import nn

from clora_core.diffusion.contexts import TextContexts, gated_attention
from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors
from clora_core.lora.gate import Gate, level_size
from clora_core.lora.kinds.factor import Factor
from clora_core.sampling.calls import PassInputs, call_of_all
from clora_core.sampling.lanes import Half, lane_batch
from clora_core.sampling.row_lanes import row_lanes

LORAS = ("peft_attention", "kohya_locon", "peft_text")
HEIGHT, WIDTH = 6, 10


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_masks(lanes, parts, height=HEIGHT, width=WIDTH):
    return random(lanes, parts, height, width, seed=7).softmax(dim=1)


def one_part_everywhere(part, lanes=1, parts=3):
    masks = torch.zeros(lanes, parts, HEIGHT, WIDTH, dtype=torch.float64)
    masks[:, part] = 1
    return masks


# ---------------------------------------------------------------------------------------- the gate


@pytest.mark.parametrize("size", [(6, 10), (3, 5), (2, 3), (1, 2), (1, 1)], ids=str)
def test_masks_at_a_layers_size_are_means_of_what_a_position_covers(size):
    masks = random_masks(2, 3)
    pooled = Gate(masks, random(2, 3, 4)).masks_at(*size)
    expected = [[loop_pooled(mask.tolist(), *size) for mask in lane] for lane in masks]
    assert torch.allclose(pooled, torch.tensor(expected, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(pooled.sum(dim=1), torch.ones(2, *size, dtype=torch.float64), atol=1e-14)


def test_weights_are_the_masks_mean_of_the_parts():
    masks, weights = random_masks(2, 3), random(2, 3, 4)
    gate = Gate(masks, weights)
    found = gate.weights_at(HEIGHT, WIDTH)
    for lane in range(2):
        for lora in range(4):
            for y in range(HEIGHT):
                for x in range(WIDTH):
                    by_part = [masks[lane, p, y, x] * weights[lane, p, lora] for p in range(3)]
                    assert found[lane, lora, y, x] == pytest.approx(float(sum(by_part)))
    assert torch.allclose(gate.mean_weights, found.mean(dim=(2, 3)))
    assert torch.equal(gate[1:].weights_at(3, 5), gate.weights_at(3, 5)[1:])


@pytest.mark.parametrize(
    ("latents", "num_positions", "size"),
    [((6, 10), 60, (6, 10)), ((6, 10), 15, (3, 5)), ((6, 10), 6, (2, 3)), ((5, 1), 3, (3, 1))],
)
def test_levels_are_halves_rounded_up(latents, num_positions, size):
    assert level_size(*latents, num_positions) == size


@pytest.mark.parametrize("num_positions", [61, 16, 7, 0])
def test_a_layer_of_no_level_is_refused(num_positions):
    with pytest.raises(ValueError, match=f"{num_positions} positions is at no level .* 6x10"):
        level_size(6, 10, num_positions)


# ------------------------------------------------------------------------------ layer by layer


def one_layer(module, name, ranks=(2, 3)):
    """A component with one layer, its random LoRAs, and their bank."""
    component = nn.Module()
    parent = component
    *path, last = name.split(".")
    for part in path:
        parent.add_module(part, nn.Module())
        parent = parent.get_submodule(part)
    parent.add_module(last, module.double())
    weight = module.weight
    factors = []
    for seed, rank in enumerate(ranks):
        down = random(rank, *weight.shape[1:], seed=seed)
        up = random(weight.shape[0], rank, *(1,) * (weight.ndim - 2), seed=10 + seed)
        factors.append(LoraFactors({"unet": {name: Factor(down, up, 0.5 + seed)}}))
    return module, factors, LoraBank(component, factors, "unet")


def run(module, bank, weights, x):
    with bank.attached(), torch.no_grad():
        bank.use(weights)
        return module(x)


def residuals(module, factors, name, x):
    """Each LoRA's own, from its two factors."""
    found = []
    for lora in factors:
        factor = lora.of("unet")[name]
        if isinstance(module, nn.Conv2d):
            hidden = nn.functional.conv2d(x, factor.down, None, module.stride, module.padding)
            found.append(nn.functional.conv2d(hidden, factor.up) * factor.scale)
        else:
            found.append(x @ factor.down.T @ factor.up.T * factor.scale)
    return found


BLOCK = "down.transformer_blocks.0.ff"
LAYERS = {
    "linear over positions": (BLOCK, lambda: nn.Linear(4, 5), (2, HEIGHT * WIDTH, 4), (6, 10)),
    "linear, one level down": (BLOCK, lambda: nn.Linear(4, 5), (2, 15, 4), (3, 5)),
    "convolution": ("conv", lambda: nn.Conv2d(4, 5, 3, padding=1), (2, 4, 6, 10), (6, 10)),
    "convolution that halves": (
        "conv",
        lambda: nn.Conv2d(4, 5, 3, stride=2, padding=1),
        (2, 4, 3, 5),
        (2, 3),
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_gated_layer_adds_each_residual_at_each_position_by_its_weight(kind):
    name, make, shape, (height, width) = LAYERS[kind]
    module, factors, bank = one_layer(make(), name)
    masks, weights, x = random_masks(2, 3), random(2, 3, 2, seed=3), random(*shape, seed=4)
    found = run(module, bank, Gate(masks, weights), x)
    expected = module(x).detach().clone()
    for lane in range(2):
        pooled = [loop_pooled(mask.tolist(), height, width) for mask in masks[lane]]
        for lora, residual in enumerate(residuals(module, factors, name, x)):
            for y in range(height):
                for x_ in range(width):
                    here = sum(pooled[p][y][x_] * float(weights[lane, p, lora]) for p in range(3))
                    if residual.ndim == 4:
                        expected[lane, :, y, x_] += here * residual[lane, :, y, x_]
                    else:
                        place = y * width + x_
                        expected[lane, place] += here * residual[lane, place]
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_a_layer_without_positions_takes_the_mean_over_the_image():
    module, factors, bank = one_layer(nn.Linear(4, 5), "time_emb_proj")
    masks, weights, x = random_masks(2, 3), random(2, 3, 2, seed=3), random(2, 4, seed=4)
    found = run(module, bank, Gate(masks, weights), x)
    expected = module(x).detach().clone()
    for lane in range(2):
        for lora, residual in enumerate(residuals(module, factors, "time_emb_proj", x)):
            for part in range(3):
                area = float(masks[lane, part].mean())
                expected[lane] += area * weights[lane, part, lora] * residual[lane]
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_outside_the_transformer_blocks_other_weights_may_hold(kind):
    name, make, shape, _ = LAYERS[kind]
    module, _, bank = one_layer(make(), name)
    gate = Gate(random_masks(2, 3), random(2, 3, 2, seed=3), elsewhere=random(2, 2, seed=5))
    x = random(*shape, seed=4)
    expected = replace(gate, elsewhere=None) if name == BLOCK else gate.elsewhere
    assert torch.equal(run(module, bank, gate, x), run(module, bank, expected, x))


# ----------------------------------------------------------------------------- the whole UNet


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def bank(core, tiny_loras):
    return LoraBank(core.model.unet, [core.factors(tiny_loras[name]) for name in LORAS], "unet")


class Texts:
    """Three texts, read by gated lanes or by plain ones."""

    def __init__(self, core, bank, weights):
        self.core, self.bank, self.weights = core, bank, weights
        self.latents = random(1, 4, HEIGHT, WIDTH, seed=8)
        self.text = random(len(weights), 77, 32, seed=9)

    def gated(self, masks):
        unet = self.core.model.unet
        lanes = len(masks)
        gate = Gate(masks, self.weights.expand(lanes, -1, -1))
        with self.bank.attached(), torch.no_grad():
            self.bank.use(self.weights)
            contexts = TextContexts.project(unet, self.text, len(self.weights), None)
            self.bank.use(gate)
            contexts.use(gate, torch.zeros(lanes, dtype=torch.long))
            with gated_attention(unet, contexts, None, ()):
                latents = self.latents.expand(lanes, -1, -1, -1)
                return unet(latents, 500, self.text[:1].expand(lanes, -1, -1)).sample

    def plain(self, part):
        with self.bank.attached(), torch.no_grad():
            self.bank.use(self.weights[part : part + 1])
            return self.core.model.unet(self.latents, 500, self.text[part : part + 1]).sample


@pytest.fixture(scope="module")
def texts(core, bank):
    return Texts(core, bank, random(3, len(LORAS), seed=6))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_one_part_everywhere_is_that_parts_own_lane(texts, part):
    found = texts.gated(one_part_everywhere(part))
    expected = texts.plain(part)
    # Keys and values of all texts come from one product, so only its rounding may differ.
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-14


def test_lanes_of_one_part_and_of_several_go_together(texts):
    masks = torch.cat(
        [one_part_everywhere(2), random_masks(1, 3), one_part_everywhere(0), random_masks(2, 3)[1:]]
    )
    together = texts.gated(masks)
    assert not torch.allclose(together[1], together[3])
    for lane in range(len(masks)):
        alone = texts.gated(masks[lane : lane + 1])[0]
        assert float((together[lane] - alone).abs().max() / alone.abs().max()) < 1e-13


def test_the_same_weights_in_every_part_are_the_plain_bank(core, bank):
    """Whatever the masks, in layers of every kind; the text here is one and plain."""
    unet = core.model.unet
    latents, text = random(2, 4, HEIGHT, WIDTH, seed=8), random(2, 77, 32, seed=9)
    weights = random(2, len(LORAS), seed=6)
    outputs = []
    for given in (weights, Gate(random_masks(2, 3), weights[:, None].expand(-1, 3, -1))):
        with bank.attached(), torch.no_grad():
            bank.use(weights)
            contexts = TextContexts.project(unet, text, 1, None)
            whole = Gate(torch.ones(2, 1, HEIGHT, WIDTH, dtype=torch.float64), weights[:, None])
            contexts.use(whole, torch.arange(2))
            bank.use(given)
            with gated_attention(unet, contexts, None, ()):
                outputs.append(unet(latents, 500, text).sample)
    assert float((outputs[0] - outputs[1]).abs().max() / outputs[0].abs().max()) < 1e-14


def test_a_gate_for_other_loras_or_lanes_is_refused(core, bank):
    gate = Gate(random_masks(2, 3), random(2, 3, 5))
    with pytest.raises(ValueError, match="5 weights a lane for 3 LoRAs"):
        bank.use(gate)
    bank.use(Gate(random_masks(2, 3), random(2, 3, 3)))
    with bank.attached(), pytest.raises(RuntimeError, match="a pass of 1 lanes with weights of 2"):
        core.model.unet(random(1, 4, HEIGHT, WIDTH), 500, random(1, 77, 32))


# ------------------------------------------------------------------------------ what has no place


def test_xls_pooled_text_and_image_size_are_not_averaged_in_half_precision(
    tiny_sdxl_dir, tiny_sdxl_loras
):
    """Shares of 1/6 in bfloat16 add up to more than 1."""
    core = Core(tiny_sdxl_dir, "bfloat16")
    row = two_concept_row(
        tiny_sdxl_loras,
        method="clora-gated",
        prompt="a cat, a dog and a bird",
        width=544,
        height=1056,
    )
    bird = lora_use(tiny_sdxl_loras["style"], subject="bird")
    row = replace(row, loras=(*row.loras, bird))
    digests = sorted(lora.digest for lora in row.loras)
    packed = [core.factors(lora.uri) for lora in sorted(row.loras, key=lambda lora: lora.digest)]
    banks = [LoraBank(tower.encoder, packed, tower.name) for tower in core.model.towers]
    lanes = lane_batch(core.model, [row_lanes(core.model, row)], digests, banks)
    masks = torch.full((1, 4, 132, 68), 1 / 6)
    masks[:, 0] = 1 / 2
    inputs = PassInputs(torch.zeros(1, 4, 132, 68), torch.tensor(5), lanes.weights_at(0), masks)
    call = call_of_all(lanes, inputs, [Half.CONDITIONAL])
    plain = lanes.conditions[Half.CONDITIONAL].added
    assert torch.equal(call.conditions.added["time_ids"], plain["time_ids"][:1])
    pooled = plain["text_embeds"].float()
    expected = (pooled * torch.tensor([1 / 2, 1 / 6, 1 / 6, 1 / 6])[:, None]).sum(dim=0)
    found = call.conditions.added["text_embeds"][0]
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), expected, rtol=2**-8, atol=1e-6)
