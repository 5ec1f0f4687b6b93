"""YAML of strangers: aliases that stand for more than a machine holds are refused."""

import pytest

from manifests.loras.catalog import read_lora_catalog
from manifests.text import yaml_text
from manifests.text.yaml_text import YamlError, load_yaml


def laughs(levels: int) -> str:
    """Return YAML of ``levels`` lists, each ten times the one before: 10 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, levels)
    ]
    return "\n".join(lines)


def test_few_aliases_are_fine():
    assert load_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
    assert len(load_yaml(laughs(3))["a2"]) == 10


@pytest.mark.parametrize("text", [laughs(9), laughs(60), "&a [*a]", "&a {x: [*a]}"])
def test_aliases_that_stand_for_billions_are_refused(text):
    with pytest.raises(YamlError, match="stands for more than 5,000,000 values"):
        load_yaml(text)


def test_a_catalog_of_such_aliases_is_a_problem(tmp_path):
    path = tmp_path / "loras.yaml"
    path.write_text(f"{laughs(9)}\nloras: [*a8]")
    (problem,) = read_lora_catalog(str(path)).problems
    assert "write fewer aliases" in problem.problem


@pytest.mark.parametrize(
    "text",
    [
        '!!int ""',
        '!!float ""',
        '!!bool "x"',
        '!!timestamp "x"',
        '!!binary "x"',
        "!!map 3",
        "!!int [1]",
    ],
)
def test_a_tag_that_its_value_does_not_fit_is_told(text: str):
    with pytest.raises(YamlError):
        load_yaml(f"a: {text}")


@pytest.mark.parametrize("text", [":".join(["1"] * 300), ":".join(["1"] * 300) + ".5", "9" * 5000])
def test_a_long_number_is_refused_before_it_is_counted(text: str):
    with pytest.raises(YamlError, match=r"a number of [\d,]+ characters; put quotes"):
        load_yaml(f"a: {text}")
    assert load_yaml(f"a: '{text}'") == {"a": text}
    assert load_yaml("[1, -2, 0x1f, 1_000, 1.5, 1e-3, .inf]")[:5] == [1, -2, 31, 1000, 1.5]


def test_more_values_than_memory_has_room_for_are_refused_while_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(yaml_text, "MAX_WRITTEN_NODES", 100)
    assert len(load_yaml("- a\n" * 99)) == 99
    with pytest.raises(YamlError, match="holds more than 100 values"):
        load_yaml("- a\n" * 100)
