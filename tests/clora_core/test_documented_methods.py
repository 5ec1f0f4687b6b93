"""What docs/methods.md says of the methods, held against them."""

import re
from pathlib import Path
from textwrap import dedent

import pytest

from clora_core.recipe.config import FUSE_SETTINGS, PRESETS, SamplerConfig
from clora_core.recipe.methods import METHODS, composite
from clora_core.recipe.methods.method import Method, Mix, Variant

DOCUMENT = (Path(__file__).parents[2] / "docs/methods.md").read_text()


def section(title: str) -> str:
    return DOCUMENT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """Return the names in the first column of the tables of ``text``."""
    cells = re.findall(r"^\| (`[^|]+) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def test_the_table_has_every_method_and_no_other():
    assert sorted(first_cells(DOCUMENT.partition("\n## ")[0])) == sorted(METHODS)


def test_the_table_of_regions_has_every_method_that_takes_them():
    with_regions = [name for name, method in METHODS.items() if method.takes_regions]
    assert sorted(first_cells(section("Regions"))) == sorted(with_regions)


def test_the_settings_of_gated_methods_are_all_there_with_their_defaults():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section("Gated methods"), re.MULTILINE)
    fields = SamplerConfig.model_fields
    assert [name for name, _ in rows] == [
        name for name in fields if name.startswith(("gate_", "freefuse_"))
    ]
    for name, text in rows:
        default = fields[name].default
        if default is not None:  # None is said in words
            assert text.strip("`") == (
                "no" if default is False else f"{default}".removesuffix(".0")
            )


def test_the_settings_of_fusing_are_all_there_with_their_defaults():
    text = section("Methods that fuse: Mix-of-Show, ZipLoRA, Custom Diffusion")
    text = text.partition("| setting |")[2]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    fields = SamplerConfig.model_fields
    assert {name for name, _ in rows} == FUSE_SETTINGS
    assert dict(rows) == {name: str(fields[name].default) for name, _ in rows}


def test_the_settings_of_k_lora_are_all_there_with_their_defaults():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section("K-LoRA"), re.MULTILINE)
    fields = SamplerConfig.model_fields
    expected = {name: str(fields[name].default) for name in fields if name.startswith("k_lora_")}
    assert dict(rows) == expected


def test_presets_are_all_there():
    assert sorted(first_cells(section("Settings"))) == sorted(PRESETS)


def test_the_example_of_a_method_is_the_method():
    (code,) = re.findall(r"```python\n(.*?)```", section("Adding a method"), re.DOTALL)
    names: dict[str, object] = {"Method": Method, "Mix": Mix, "Variant": Variant}
    exec(dedent(code), names)  # noqa: S102 - it is our own document
    mix = Mix(("concept", "style", "concept"), SamplerConfig())
    documented = names["METHOD"]
    assert isinstance(documented, Method)
    assert documented.variants(mix) == composite.METHOD.variants(mix)
    assert documented.name in METHODS


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.make_gate])
def test_every_gated_method_has_its_cost_written_down(name: str):
    assert name in section("Cost")
