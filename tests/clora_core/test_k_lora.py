"""K-LoRA against dense matrices and against peft's adapters, chosen layer by layer."""

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.core_runs import Core, relative
from oracles.k_lora import dense_ratios
from oracles.loops import loop_sample
from oracles.peft_pipeline import activate, load_pipeline, loaded_loras
from oracles.tiny_rows import lora_use, tiny_sampler, two_concept_row

from clora_core.lora.bank import LoraBank
from clora_core.lora.factors import LoraFactors
from clora_core.lora.kinds.factor import Factor
from clora_core.lora.layer_choice import LayerChoice, layer_ratios
from clora_core.lora.layer_weights import LayerWeights
from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.errors import CompositionError
from clora_core.recipe.findings import composition_findings
from clora_core.recipe.methods.k_lora import layer_scale

PAIRS = [
    ("peft_text", "style"),  # ranks 8 and 4
    ("kohya_locon", "kohya_text"),  # other layers too; alpha is not the rank
    ("peft_attention", "kohya_linear"),
]


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir, tiny_loras):
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    names = sorted({name for pair in PAIRS for name in pair})
    with loaded_loras(pipeline, [lora_use(tiny_loras[name]) for name in names]):
        yield pipeline


def row_of(loras, content, style, **fields):
    uses = (
        lora_use(loras[style], kind="style", weight=0.6),
        lora_use(loras[content], subject="cat", trigger="sks", weight=0.9),
    )
    row = two_concept_row(loras, prompt="a cat at night", width=64, height=64, method="k-lora")
    return replace(row, loras=uses, **fields)


def bank_of(core, loras, names):
    return LoraBank(core.model.unet, [core.factors(loras[name]) for name in names], "unet")


# ----------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.3, -1.7)])
@pytest.mark.parametrize(("content", "style"), PAIRS)
def test_ratios_are_those_of_dense_matrices_whatever_the_weights(
    core, pipeline, tiny_loras, content, style, weights
):
    uses = [lora_use(tiny_loras[name]) for name in (content, style)]
    with loaded_loras(pipeline, uses) as names:
        activate(pipeline, list(zip(names, weights, strict=True)))
        expected = dense_ratios(pipeline.unet, *names)
    found = layer_ratios(bank_of(core, tiny_loras, (content, style)), 0, 1)
    assert len(found) == 4 * sum(".attn" in n and n.endswith("to_q") for n in modules(core))
    assert found == pytest.approx(expected, rel=1e-9)


def modules(core):
    return [name for name, _ in core.model.unet.named_modules()]


def factors_of(**layers):
    return LoraFactors({"unet": layers})


def dense(values):
    """A matrix as a LoRA of full rank."""
    matrix = torch.tensor(values, dtype=torch.float64)
    return Factor(torch.eye(matrix.shape[1], dtype=torch.float64), matrix, 1.0)


class Toy(torch.nn.Module):
    """Layers of a UNet by name, 2x2 each."""

    def __init__(self, *names):
        super().__init__()
        self.places = {name: torch.nn.Linear(2, 2, bias=False).double() for name in names}

    def get_submodule(self, name):
        return self.places[name]


Q = "down.attn1.to_q"


def toy_ratios(content, style):
    """``{layer: matrix}`` of two LoRAs."""
    loras = [
        factors_of(**{name: dense(values) for name, values in each.items()})
        for each in (content, style)
    ]
    return layer_ratios(LoraBank(Toy(*content, *style), loras, "unet"), 0, 1)


def test_a_layer_of_more_than_three_times_the_mean_is_left_out_of_gamma():
    ones, tiny = [[1.0, 1.0], [1.0, 1.0]], [[0.01, 0.01], [0.01, 0.01]]
    names = [f"block.{index}.attn2.to_v" for index in range(5)]
    content = dict.fromkeys(names, ones)
    style = dict.fromkeys(names, ones) | {names[-1]: tiny}
    found = toy_ratios(content, style)  # ratios of 1, 1, 1, 1 and 100, whose mean is 20.8
    assert [found[name] for name in names] == pytest.approx([1, 1, 1, 1, 100])


def test_a_lora_that_changes_nothing_leaves_the_layer_to_the_other():
    zeros, ones = [[0.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]
    assert toy_ratios({Q: zeros}, {Q: ones}) == {Q: 0.0}
    assert toy_ratios({Q: ones}, {Q: zeros}) == {Q: torch.inf}


def test_only_attention_projections_of_both_are_chosen_for():
    ones = [[1.0, 0.0], [0.0, 1.0]]
    names = ["a.attn1.to_q", "a.attn2.to_out.0", "a.ff.net.2", "a.proj_in", "a.attn1.to_k"]
    found = toy_ratios(dict.fromkeys(names, ones), dict.fromkeys(names[:4], ones))
    assert sorted(found) == ["a.attn1.to_q", "a.attn2.to_out.0"]


def test_a_row_takes_one_lora_where_it_has_both_and_all_elsewhere():
    nan = torch.nan
    choice = LayerChoice(
        {"x": 0, "y": 1},
        torch.tensor([[1.0, 2.0], [nan, 0.5]], dtype=torch.float64),
        torch.tensor([[0, 2], [1, 2]]),
    )
    weights = torch.tensor([[0.7, 0.0, 0.3], [0.0, 0.9, 0.4]], dtype=torch.float64)
    found = choice.weights(1.5, weights)
    assert found.of("x").tolist() == [[0.0, 0.0, 0.3], [0.0, 0.9, 0.4]]
    assert found.of("y").tolist() == [[0.7, 0.0, 0.0], [0.0, 0.0, 0.4]]
    assert torch.equal(found.of("elsewhere"), weights)


@given(alpha=st.floats(0, 4), beta=st.floats(0, 4), num_steps=st.integers(1, 200))
def test_a_layer_once_given_to_the_style_stays_with_it(alpha, beta, num_steps):
    config = SamplerConfig(
        num_steps=num_steps, guide_until_step=0, k_lora_alpha=alpha, k_lora_beta=beta
    )
    scales = [layer_scale(step, config) for step in range(num_steps)]
    assert scales == sorted(scales)
    assert scales[0] == beta


def test_the_scale_of_the_released_counter_is_the_steps():
    """It has 560 projections a step and divides by 28,000: those of 50 steps."""
    config = SamplerConfig(num_steps=50)
    for step in (0, 1, 24, 49):
        first, last = ((560 * step + call) / 28_000 * 1.5 + 0.5 for call in (1, 560))
        assert layer_scale(step, config) < first
        assert layer_scale(step + 1, config) == pytest.approx(last)


# ------------------------------------------------------------------------------- weights by layer


def test_a_pass_with_weights_by_layer_is_the_unet_with_these_deltas_added(core, tiny_loras):
    names = ("peft_attention", "kohya_locon", "peft_text")
    bank = bank_of(core, tiny_loras, names)
    generator = torch.Generator().manual_seed(3)
    layers = [name for name, _ in bank.deltas(0, 1)]
    chosen = torch.randn(2, len(layers), 3, generator=generator, dtype=torch.float64)
    elsewhere = torch.tensor([[0.2, -0.4, 1.0], [0.0, 0.5, 0.0]], dtype=torch.float64)
    weights = LayerWeights(elsewhere, chosen, {name: at for at, name in enumerate(layers)})
    unet = core.model.unet
    inputs = {
        "sample": torch.randn(2, 4, 16, 16, generator=generator, dtype=torch.float64),
        "encoder_hidden_states": torch.randn(
            2, 77, unet.config.cross_attention_dim, generator=generator, dtype=torch.float64
        ),
    }
    with torch.no_grad():
        with bank.attached():
            bank.use(weights)
            found = unet(**inputs, timestep=500).sample
            bank.use(weights[1:])
            second = unet(**{k: v[1:] for k, v in inputs.items()}, timestep=500).sample
        for lane in range(2):
            before = {name: value.clone() for name, value in unet.state_dict().items()}
            for lora, name in enumerate(names):
                for layer, factor in core.factors(tiny_loras[name]).of("unet").items():
                    weight = unet.get_submodule(layer).weight
                    up, down = (f.flatten(start_dim=1).double() for f in (factor.up, factor.down))
                    delta = (up @ down * factor.scale).view_as(weight)
                    weight += delta * float(weights.of(layer)[lane, lora])
            one = {name: value[lane : lane + 1] for name, value in inputs.items()}
            expected = unet(**one, timestep=500).sample
            unet.load_state_dict(before)
            assert relative(found[lane : lane + 1], expected) < 1e-12
    assert relative(second, found[1:]) < 1e-13


def test_the_bank_refuses_weights_by_layer_for_other_loras(core, tiny_loras):
    bank = bank_of(core, tiny_loras, ("style",))
    with pytest.raises(ValueError, match="2 weights a lane for 1 LoRAs"):
        bank.use(LayerWeights(torch.ones(1, 2), torch.ones(1, 1, 2), {Q: 0}))


def test_deltas_are_the_products_of_the_files_factors(core, tiny_loras):
    names = ("kohya_locon", "kohya_linear")
    found = dict(bank_of(core, tiny_loras, names).deltas(1, 0))
    of_file = [core.factors(tiny_loras[name]).of("unet") for name in names]
    assert found.keys() == of_file[0].keys() & of_file[1].keys()
    for layer, deltas in found.items():
        for delta, factors in zip(deltas, reversed(of_file), strict=True):
            factor = factors[layer]
            up, down = (f.flatten(start_dim=1).double() for f in (factor.up, factor.down))
            assert delta.rank == factor.rank
            assert torch.allclose(delta.values, up @ down * factor.scale, atol=1e-13)


# ---------------------------------------------------------------------------------- the sampler


@pytest.mark.parametrize(("content", "style"), PAIRS)
def test_the_method_is_its_loop(core, pipeline, tiny_loras, content, style):
    sampler = tiny_sampler(num_steps=4, k_lora_alpha=1.0)
    row = row_of(tiny_loras, content, style, sampler=sampler, negative_prompt="a bird")
    expected = loop_sample(pipeline, row)
    found, trace = core.sample(row)
    assert relative(found, expected) < 1e-12
    assert (trace.losses, trace.coverage, trace.evaluations) == ([], [], 8)
    merged, _ = core.sample(replace(row, method="merge"))
    assert relative(merged, expected) > 1e-3


@pytest.mark.parametrize("change", [{"text_encoder_lora": False}, {"guidance_scale": 1.0}])
def test_the_method_is_its_loop_under_other_settings(core, pipeline, tiny_loras, change):
    row = row_of(tiny_loras, *PAIRS[1], sampler=tiny_sampler(num_steps=3, **change))
    assert relative(core.sample(row)[0], loop_sample(pipeline, row)) < 1e-12


def test_the_method_on_sdxl_is_its_loop(tiny_sdxl_dir, tiny_sdxl_loras):
    row = row_of(tiny_sdxl_loras, "peft_text", "kohya_text", width=128, height=128)
    row = replace(row, sampler=tiny_sampler(num_steps=2), negative_prompt="a bird")
    pipeline = load_pipeline(tiny_sdxl_dir, dtype=torch.float64)
    assert relative(Core(tiny_sdxl_dir).sample(row)[0], loop_sample(pipeline, row)) < 1e-6


def test_all_layers_are_the_contents_or_the_styles_at_the_ends_of_the_scale(core, tiny_loras):
    """Of two LoRAs on nothing but attention projections."""
    row = row_of(tiny_loras, "peft_attention", "style")
    style, content = row.loras
    for beta, kept in ((0.0, content), (1e6, style)):
        sampler = tiny_sampler(num_steps=2, k_lora_alpha=0.0, k_lora_beta=beta)
        off = tuple(lora if lora is kept else replace(lora, weight=0.0) for lora in row.loras)
        alone = replace(row, method="merge", loras=off, sampler=sampler)
        found, _ = core.sample(replace(row, sampler=sampler))
        assert relative(found, core.sample(alone)[0]) < 1e-13


def test_rows_of_other_loras_go_together_in_any_number_of_calls(core, tiny_loras):
    rows = [
        row_of(tiny_loras, *pair, seed=seed, sampler=tiny_sampler(num_steps=2))
        for seed, pair in enumerate(PAIRS)
    ]
    for limit in (None, 2):
        together, _ = core.sample(rows, max_lanes=limit)
        for index, alone in enumerate(rows):
            assert relative(together[index], core.sample(alone)[0][0]) < 1e-12


# -------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("kinds", "has"),
    [("cc", "2 and 0"), ("c", "1 and 0"), ("s", "0 and 1"), ("css", "1 and 2"), ("ccs", "2 and 1")],
)
def test_a_row_that_is_not_a_concept_and_a_style_is_refused_by_name(core, tiny_loras, kinds, has):
    row = row_of(tiny_loras, *PAIRS[0])
    style, cat = row.loras
    dog = replace(cat, subject="night", trigger="zwx")
    loras = tuple(style if kind == "s" else (cat, dog)[i] for i, kind in enumerate(kinds))
    needs = r"method 'k-lora' needs 1 concept LoRA\(s\) and 1 style LoRA\(s\), the row has "
    with pytest.raises(CompositionError, match=needs + has):
        core.sample(replace(row, loras=loras))
    [(column, text)] = composition_findings("k-lora", row.prompt, loras)
    assert column == "method"
    assert re.match(needs + has, text)
