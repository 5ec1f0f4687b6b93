"""The LoRA bank against peft, adapter by adapter, lane by lane, for every file format."""

from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.core_runs import Core, relative
from oracles.peft_pipeline import activate, load_pipeline, loaded_loras
from oracles.tiny_rows import lora_use

from clora_core.lora.bank import LoraBank

FORMATS = [
    "peft_attention",
    "peft_attention_b",
    "peft_text",
    "kohya_linear",
    "kohya_locon",
    "kohya_text",
    "kohya_text_only",
    "diffusers_old",
    "style",
    "bare_peft",
]
"""Among them: linear and convolution layers, ranks 4 and 8, alphas that are not the rank."""

XL_FORMATS = ["peft_attention", "style", "kohya_text", "peft_text"]


class Tiny:
    """One tiny model, once with our bank of all its LoRAs and once with peft's adapters."""

    def __init__(self, folder, files, formats, dtype):
        self.formats = formats
        self.core = Core(folder, str(dtype).removeprefix("torch."))
        self.model = self.core.model
        packed = [self.core.factors(files[name]) for name in formats]
        names = ["unet", *(tower.name for tower in self.model.towers)]
        self.banks = {n: LoraBank(self.model.components[n], packed, n) for n in names}
        self.pipeline = load_pipeline(folder, dtype=dtype)
        self.uses = [lora_use(files[name]) for name in formats]

    def unet_inputs(self, lanes):
        generator = torch.Generator().manual_seed(5)
        config = self.model.unet.config
        width = config.cross_attention_dim
        inputs = {
            "sample": torch.randn(lanes, 4, 16, 24, generator=generator),
            "encoder_hidden_states": torch.randn(lanes, 77, width, generator=generator),
        }
        inputs = {name: value.to(self.model.dtype) for name, value in inputs.items()}
        added = None
        if self.model.is_xl:
            added = {
                "text_embeds": torch.randn(lanes, 32, generator=generator).to(self.model.dtype),
                "time_ids": torch.full((lanes, 6), 256.0).to(self.model.dtype),
            }
        return inputs, added

    def ours(self, weights, inputs, added):
        """All lanes in one pass."""
        with self.banks["unet"].attached():
            self.banks["unet"].use(weights)
            return self.model.unet(**inputs, timestep=500, added_cond_kwargs=added).sample

    def pefts(self, names, weights, inputs, added):
        """One lane after the other, adapters switched in between."""
        outputs = []
        for lane, row in enumerate(weights.tolist()):
            activate(self.pipeline, [(n, w) for n, w in zip(names, row, strict=True) if w])
            one = {name: value[lane : lane + 1] for name, value in inputs.items()}
            more = added and {name: value[lane : lane + 1] for name, value in added.items()}
            unet = self.pipeline.unet
            outputs.append(unet(**one, timestep=500, added_cond_kwargs=more).sample)
        return torch.cat(outputs)


@contextmanager
def _tiny(folder, files, formats, dtype):
    tiny = Tiny(folder, files, formats, dtype)
    with loaded_loras(tiny.pipeline, tiny.uses) as names:
        tiny.names = names
        yield tiny


@pytest.fixture(scope="module")
def exact(tiny_sd_dir, tiny_loras):
    with _tiny(tiny_sd_dir, tiny_loras, FORMATS, torch.float64) as tiny:
        yield tiny


@pytest.fixture(scope="module")
def single(tiny_sd_dir, tiny_loras):
    with _tiny(tiny_sd_dir, tiny_loras, FORMATS, torch.float32) as tiny:
        yield tiny


@pytest.fixture(scope="module")
def exact_xl(tiny_sdxl_dir, tiny_sdxl_loras):
    with _tiny(tiny_sdxl_dir, tiny_sdxl_loras, XL_FORMATS, torch.float64) as tiny:
        yield tiny


def weights_of(tiny, *lanes):
    """One row a lane, from ``{format: weight}``."""
    table = [[lane.get(name, 0.0) for name in tiny.formats] for lane in lanes]
    return torch.tensor(table, dtype=torch.float64)


def error(tiny, weights):
    inputs, added = tiny.unet_inputs(len(weights))
    with torch.no_grad():
        found = tiny.ours(weights, inputs, added)
        return relative(found, tiny.pefts(tiny.names, weights, inputs, added))


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_alone_is_pefts_adapter(exact, name):
    assert error(exact, weights_of(exact, {name: 1.0})) < 1e-12


@pytest.mark.parametrize("name", XL_FORMATS)
def test_each_sdxl_format_alone_is_pefts_adapter(exact_xl, name):
    assert error(exact_xl, weights_of(exact_xl, {name: 1.0})) < 1e-12


MIXED_LANES = [
    {},
    {"kohya_locon": 1.0},
    {"peft_text": 0.7, "kohya_linear": -0.5, "style": 0.3},
    dict.fromkeys(FORMATS, 0.25),
    {"style": 1.0},
]


def test_lanes_with_different_mixes_are_made_in_one_pass(exact):
    assert error(exact, weights_of(exact, *MIXED_LANES)) < 1e-12


def test_lanes_in_single_precision(single):
    assert error(single, weights_of(single, *MIXED_LANES)) < 1e-5


def test_sdxl_lanes_with_different_mixes_are_made_in_one_pass(exact_xl):
    lanes = [{}, {"peft_text": 1.0, "style": 0.5}, dict.fromkeys(XL_FORMATS, 0.4)]
    assert error(exact_xl, weights_of(exact_xl, *lanes)) < 1e-12


@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_any_mix_in_any_lane_is_pefts(exact, data):
    weight = st.sampled_from([0.0, 0.0, 0.0, 1.0, -1.0, 0.3, 2.0])
    lane = st.lists(weight, min_size=len(FORMATS), max_size=len(FORMATS))
    weights = torch.tensor(data.draw(st.lists(lane, min_size=1, max_size=3)), dtype=torch.float64)
    assert error(exact, weights) < 1e-11


@pytest.mark.parametrize("tower", ["text_encoder"])
def test_text_encoder_lanes_are_pefts(exact, tower):
    assert text_error(exact, tower) < 1e-12


@pytest.mark.parametrize("tower", ["text_encoder", "text_encoder_2"])
def test_both_sdxl_text_encoders_lanes_are_pefts(exact_xl, tower):
    assert text_error(exact_xl, tower) < 1e-12


def text_error(tiny, tower):
    encoder, bank = tiny.model.components[tower], tiny.banks[tower]
    adapted = getattr(tiny.pipeline, tower)
    tokens = tiny.pipeline.tokenizer(["a sks cat", "a dog on a beach", "a zwx"], padding=True)
    ids = torch.tensor(tokens.input_ids)
    weights = weights_of(tiny, {}, {"peft_text": 1.0}, {"peft_text": 0.5, "kohya_text": -0.8})
    expected = []
    with torch.no_grad():
        with bank.attached():
            bank.use(weights)
            found = encoder(ids, output_hidden_states=True).hidden_states[-2:]
        for lane, row in enumerate(weights.tolist()):
            activate(tiny.pipeline, list(zip(tiny.names, row, strict=True)))
            one = adapted(ids[lane : lane + 1], output_hidden_states=True)
            expected.append(torch.stack(one.hidden_states[-2:]))
    return relative(torch.stack(found), torch.cat(expected, dim=1))


def test_the_gradient_at_the_latents_is_pefts(exact):
    weights = weights_of(exact, *MIXED_LANES[:4])
    inputs, added = exact.unet_inputs(len(weights))
    gradients = []
    for run in (
        lambda given: exact.ours(weights, given, added),
        lambda given: exact.pefts(exact.names, weights, given, added),
    ):
        leaf = inputs["sample"].clone().requires_grad_()
        output = run({**inputs, "sample": leaf})
        ramp = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        gradients.append(torch.autograd.grad((output * ramp).sum(), leaf)[0])
    assert relative(*gradients) < 1e-12


def test_lanes_of_zeros_are_the_base_bit_for_bit(single):
    inputs, added = single.unet_inputs(2)
    with torch.no_grad():
        base = single.model.unet(**inputs, timestep=500, added_cond_kwargs=added).sample
        zeros = single.ours(torch.zeros(2, len(FORMATS)), inputs, added)
    assert torch.equal(zeros, base)


def test_a_lane_of_zeros_beside_others_is_the_base_bit_for_bit(single):
    inputs, added = single.unet_inputs(3)
    with torch.no_grad():
        base = single.model.unet(**inputs, timestep=500, added_cond_kwargs=added).sample
        mixed = single.ours(weights_of(single, *MIXED_LANES[:3]), inputs, added)
    assert torch.equal(mixed[0], base[0])
    assert not torch.equal(mixed[1], base[1])


def test_an_empty_bank_is_the_base(single):
    bank = LoraBank(single.model.unet, [], "unet")
    assert bank.num_layers == 0
    inputs, added = single.unet_inputs(1)
    with torch.no_grad(), bank.attached():
        bank.use(torch.zeros(1, 0))
        found = single.model.unet(**inputs, timestep=500, added_cond_kwargs=added).sample
        expected = single.model.unet(**inputs, timestep=500, added_cond_kwargs=added).sample
    assert torch.equal(found, expected)


def test_a_bank_counts_the_layers_that_change(single):
    modules = dict(single.model.unet.named_modules())
    only_text = [single.core.factors(lora_use_path(single, "kohya_text_only"))]
    assert LoraBank(single.model.unet, only_text, "unet").num_layers == 0
    assert LoraBank(single.model.towers[0].encoder, only_text, "text_encoder").num_layers > 0
    locon = single.core.factors(lora_use_path(single, "kohya_locon"))
    bank = LoraBank(single.model.unet, [locon, locon], "unet")
    assert bank.num_layers == len(locon.of("unet")) < len(modules)


def lora_use_path(tiny, name):
    return tiny.uses[tiny.formats.index(name)].uri


# ------------------------------------------------------------------------- in and out again


def all_hooks(module):
    return [
        (name, kind)
        for name, part in module.named_modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        if getattr(part, kind)
    ]


def test_attaching_and_detaching_leaves_the_model_as_it_was(single):
    unet, bank = single.model.unet, single.banks["unet"]
    inputs, added = single.unet_inputs(1)
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    with torch.no_grad():
        base = unet(**inputs, timestep=500, added_cond_kwargs=added).sample
        with bank.attached():
            assert len(all_hooks(unet)) == bank.num_layers
            bank.use(torch.ones(1, len(FORMATS)))
            changed = unet(**inputs, timestep=500, added_cond_kwargs=added).sample
        after = unet(**inputs, timestep=500, added_cond_kwargs=added).sample
    assert not torch.equal(changed, base)
    assert torch.equal(after, base)
    assert all_hooks(unet) == []
    assert all(torch.equal(value, before[name]) for name, value in unet.state_dict().items())


def test_an_exception_inside_leaves_the_model_as_it_was(single):
    unet, bank = single.model.unet, single.banks["unet"]
    bank.use(torch.ones(1, len(FORMATS)))
    with pytest.raises(ZeroDivisionError), bank.attached():
        raise ZeroDivisionError
    assert all_hooks(unet) == []


def test_weights_do_not_outlive_their_block(single):
    bank, unet = single.banks["unet"], single.model.unet
    inputs, added = single.unet_inputs(1)
    with bank.attached():
        bank.use(torch.ones(1, len(FORMATS)))
    with bank.attached(), pytest.raises(RuntimeError, match=r"LoraBank.use\(\) was not called"):
        unet(**inputs, timestep=500, added_cond_kwargs=added)


def test_weights_for_other_lanes_are_refused(single):
    bank, unet = single.banks["unet"], single.model.unet
    inputs, added = single.unet_inputs(2)
    with pytest.raises(ValueError, match="3 weights a lane for 10 LoRAs"):
        bank.use(torch.ones(1, 3))
    bank.use(torch.ones(3, len(FORMATS)))
    with bank.attached(), pytest.raises(RuntimeError, match="a pass of 2 lanes with weights of 3"):
        unet(**inputs, timestep=500, added_cond_kwargs=added)
