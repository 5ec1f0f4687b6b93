"""What is said of an adapter's memory and shape without torch, against what is read."""

from pathlib import Path

import pytest
from adapters.case import Components
from adapters.cases import CASES, write_case
from adapters.layers import read_components

from clora_core.lora.kinds.factor import Factor
from clora_core.lora.load import lora_targets, read_lora
from clora_core.recipe.lora.held import held_bytes, is_product
from clora_core.recipe.lora.placement import placed_layers
from jobs.commands.lora_files.inspect import described
from manifests.loras.about.report import lora_report
from manifests.loras.about.sizes import item_bytes
from manifests.loras.file import lora_content

BY_NAME = {str(case): case for case in CASES}
READ = [
    *(f"LyCORIS-{kind}-kohya-sd15" for kind in (
        "locon_tucker", "loha", "loha_tucker", "lokr", "lokr_tucker", "dora_input",
        "lokr_dora_output", "full", "oft_rescale", "boft_constraint_rescale", "glora",
    )),
    "kohya_sd-scripts-lora-kohya-sd15-F8_E4M3", "LyCORIS-norm-kohya-sd15-F16",
    "LyCORIS-loha-kohya-sd15-F64",
    "OneTrainer-oft-legacy-sd15", "diffusers_scripts-dora-scripts-sd15",
]  # fmt: skip


@pytest.fixture(scope="module")
def components(tiny_sd_dir: Path) -> Components:
    return read_components(tiny_sd_dir)


@pytest.mark.parametrize("name", READ)
def test_memory_and_products_are_those_of_the_layers_as_they_are_read(
    name: str, components: Components, tmp_path: Path
):
    path = write_case(tmp_path, BY_NAME[name], components).path
    content, model = lora_content(path), lora_targets(components)
    read = read_lora(path, model)
    for (component, layer_name), layer in placed_layers(path, content.layers, model).items():
        update = read.of(component)[layer_name]
        assert held_bytes(layer, item_bytes(content.header, layer)) == update.num_bytes
        assert is_product(layer) == isinstance(update, Factor)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("LyCORIS-lora-kohya-sd15", ["kohya LoRA for", "rank:     4, alpha 2 (scale 0.5)"]),
        ("LyCORIS-loha-kohya-sd15", [
            "kohya LoHa for", "in a batch 6 LoHa layers as whole differences",
        ]),
        ("LyCORIS-lokr_whole-kohya-sd15", ["kohya LoKr for", "factors:  4x4 times 8x8 to"]),
        ("LyCORIS-full-kohya-sd15", [
            "kohya full differences with trained biases for",
            "whole:    differences of 15 weights, without a rank",
            "biases:   of 13 layers", "UNet outer layers 3",
        ]),
        ("LyCORIS-norm-kohya-sd15", ["kohya trained norms for", "UNet norms 4"]),
        ("LyCORIS-oft-kohya-sd15", ["blocks:   of 4 channels, outputs turned\n"]),
        ("OneTrainer-oft-legacy-sd15", ["blocks:   of 4 channels, inputs turned\n"]),
        ("LyCORIS-boft-kohya-sd15", ["outputs turned in 1 to 7 (5 different) steps"]),
    ],
)  # fmt: skip
def test_a_kind_s_own_sizes_are_said_and_no_other_s(
    name: str, told: list[str], components: Components, tmp_path: Path
):
    path = write_case(tmp_path, BY_NAME[name], components).path
    said = described(lora_report(path), same_as=path)
    for text in told:
        assert text in said
    assert ("rank:" in said) == any("rank:" in text or "LoHa" in text for text in told)
    assert "memory:   " in said
