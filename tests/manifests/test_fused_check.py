"""Methods that fuse take products of two factors, and rows say so before a run."""

import numpy as np
import pytest
from input_kit import row, safetensors_bytes

from clora_core.recipe.config import SamplerConfig
from manifests.loras.catalog import read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import check_rows
from manifests.rows.rules import RowModel, RowRules
from manifests.tables.readers import RawRow

UNET = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
TEXT = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"


def zeros(*shape):
    return np.zeros(shape, "f4")


def plain(layer, rank=4):
    return {
        f"{layer}.lora_down.weight": zeros(rank, 768),
        f"{layer}.lora_up.weight": zeros(768, rank),
    }


def loha(layer, rank):
    sides = {"a": (768, rank), "b": (rank, 768)}
    return {f"{layer}.hada_w{n}_{s}": zeros(*shape) for n in "12" for s, shape in sides.items()}


FILES = {
    "plain": plain(UNET),
    "small": loha(UNET, 4),
    "wide": loha(UNET, 32),
    "dora": plain(UNET) | {f"{UNET}.dora_scale": zeros(768, 1)},
    "bias": plain(UNET) | {f"{UNET}.diff_b": zeros(768)},
    "norm": plain(UNET) | {f"{UNET[:-10]}norm1.w_norm": zeros(768)},
    "norms alone": {f"{UNET[:-10]}norm1.w_norm": zeros(768)},
    "all": plain(UNET)
    | {
        f"{UNET}.dora_scale": zeros(768, 1),
        f"{UNET}.diff_b": zeros(768),
        f"{UNET[:-10]}norm1.w_norm": zeros(768),
    },
    "text": plain(UNET) | loha(TEXT, 32),
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    lines = ["loras:"]
    for name, tensors in FILES.items():
        (root / f"{name}.safetensors").write_bytes(safetensors_bytes(tensors))
        lines.append(f"- {{name: {name}, uri: {name}.safetensors, subject: dog}}")
    lines.append("- {name: cat, uri: plain.safetensors, subject: cat}")
    lines.append("- {name: style, uri: dora.safetensors, kind: style}")
    (root / "catalog.yaml").write_text("\n".join(lines))
    model = RowModel(
        digest="d", side_px=64, lora_fit=LoraFit(model_width=768), sampler=SamplerConfig()
    )
    return RowRules(
        catalog=read_lora_catalog(str(root / "catalog.yaml")),
        lora_files=LoraFiles(),
        base_models={"": model},
        method="merge",
        dtype="float32",
    )


def problems(rules, *loras, **values):
    raw = row(prompt="a cat and a dog", loras=["cat", *loras], **values)
    given = check_rows([RawRow(place="m", line=1, values=raw)], rules, place="m")
    return [f"{each.field}: {each.problem}" for each in given.problems]


@pytest.mark.parametrize("method", ["mix-of-show", "ziplora", "custom-diffusion"])
def test_what_is_no_product_of_two_factors_is_refused_by_its_kind(rules, method):
    assert problems(rules, "dora", method=method) == [
        f"method: {method!r} fuses plain LoRAs alone, and LoRA 'dora' has DoRA; convert it with "
        "`clora loras convert --base-model MODEL`, or use 'merge' or another method that fuses "
        "nothing"
    ]


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ("wide", "LoHa; convert it with `clora loras convert`, or use 'merge'"),
        ("bias", "trained biases; convert it with `clora loras convert --leave-out biases`, or"),
        ("norm", "trained norms; convert it with `clora loras convert --leave-out norms`, or use"),
        ("norms alone", "trained norms; use 'merge' or another method that fuses nothing"),
        (
            "all",
            "DoRA, trained biases, trained norms; convert it with `clora loras convert "
            "--base-model MODEL --leave-out norms,biases`, or",
        ),
    ],
)
def test_so_is_a_part_that_is_none_with_the_options_that_convert_it(rules, lora, said):
    (found,) = problems(rules, lora, method="ziplora")
    assert f"LoRA {lora!r} has {said}" in found


@pytest.mark.parametrize("lora", ["plain", "small"])
def test_a_small_loha_is_a_product_of_two_factors(rules, lora):
    assert problems(rules, lora, method="ziplora") == []


def test_layers_that_are_not_fused_are_not_asked(rules):
    (found,) = problems(rules, "text", method="ziplora")
    assert "LoRA 'text' has LoHa" in found
    off = {"text_encoder_lora": False}
    assert problems(rules, "text", method="ziplora", sampler=off) == []


def test_styles_and_methods_that_fuse_nothing_take_any_kind(rules):
    assert problems(rules, "plain", "style", method="ziplora") == []
    assert problems(rules, "dora", method="merge") == []
