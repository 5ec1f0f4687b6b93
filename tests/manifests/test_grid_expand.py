import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from manifests.grid import expand as grid_expand
from manifests.grid.expand import Expansion, SweepRules, expand_sweep
from manifests.grid.spec import SweepSpec, load_sweep
from manifests.loras.catalog import LoraEntry
from manifests.places.locations import LocationError
from manifests.rows.loras import requested_loras
from manifests.text.problems import InputError

CATALOG = {
    name: LoraEntry(name=name, uri=f"/{name}", subject=subject, kind="concept")
    for name, subject in {"tom": "cat", "felix": "cat", "rex": "dog", "hoot": "owl"}.items()
} | {"ink": LoraEntry(name="ink", uri="/ink", kind="style")}

FILES = {"lines.txt": "a cat, a dog <lora:tom:0.5> --d 3 --s 9\na dog and a cat\n"}


def read_text(name: str) -> str:
    if name not in FILES:
        raise LocationError(f"{name} does not exist; check the path")
    return FILES[name]


def expand(**spec: Any) -> Expansion:
    rules = SweepRules(
        catalog=CATALOG,
        read_text=read_text,
    )
    return expand_sweep(SweepSpec.model_validate({"output": "out", **spec}), rules)


def columns(expansion: Expansion, *names: str) -> list[tuple[Any, ...]]:
    assert not expansion.findings
    return [tuple(row.get(name) for name in names) for row in expansion.rows()]


@given(
    methods=st.lists(st.sampled_from(["clora", "merge"]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    num_backgrounds=st.integers(1, 3),
    num_samplers=st.integers(1, 2),
)
def test_every_method_gets_the_same_prompts_seeds_and_settings(
    methods: list[str], seeds: list[int], num_backgrounds: int, num_samplers: int
):
    made = expand(
        methods=methods,
        seeds=seeds,
        prompts=["{subjects} {background}"],
        backgrounds=[f"in {n}" for n in range(num_backgrounds)],
        samplers=[{"num_steps": 10 + n} for n in range(num_samplers)],
        compositions=[["tom", "rex"], {"loras": ["rex", "hoot"]}],
    )
    each = {
        method: [
            (row["prompt"], row["loras"], row["seed"], row["sampler"])
            for row in made.rows()
            if row["method"] == method
        ]
        for method in methods
    }
    first = each[methods[0]]
    assert all(rows == first for rows in each.values())
    assert len(set(first)) == len(first) == 2 * num_backgrounds * num_samplers * len(seeds)
    assert len({row["row_id"] for row in made.rows()}) == made.num_rows == len(list(made.rows()))


def test_a_template_without_background_is_made_once():
    made = expand(
        methods=["merge"],
        prompts=["{subjects}", "a {0}, a {1} {background}"],
        backgrounds=["here", "there"],
        compositions=[["tom", "rex"]],
    )
    assert columns(made, "prompt", "background") == [
        ("a cat and a dog", None),
        ("a cat, a dog here", "here"),
        ("a cat, a dog there", "there"),
    ]


def test_pairs_and_triples_are_those_of_different_subjects():
    made = expand(methods=["merge"], pairs_of=["tom", "felix", "rex"], triples_of=list(CATALOG)[:4])
    assert columns(made, "loras") == [
        ("tom;rex",),
        ("felix;rex",),
        ("tom;rex;hoot",),
        ("felix;rex;hoot",),
    ]


def test_loras_keep_their_weights_and_words_and_styles_have_no_place_in_the_prompt():
    loras = [{"lora": "tom", "weight": 0.5, "subject": "kitten"}, "ink:0.25"]
    made = expand(methods=["merge"], compositions=[loras])
    ((prompt, text),) = columns(made, "prompt", "loras")
    assert prompt == "a kitten"
    assert json.loads(text)[0] == {"lora": "tom", "weight": 0.5, "subject": "kitten"}
    plain = expand(methods=["merge"], compositions=[["tom:0.5", "ink"]])
    assert columns(plain, "loras") == [("tom:0.5;ink",)]


def test_lines_of_a_prompt_file_bring_their_own_loras_seeds_and_settings():
    made = expand(
        methods=["merge"],
        seeds=[0, 1],
        samplers=[{"guidance_scale": 4.0}],
        compositions=[{"loras": ["tom", "rex"], "prompt_file": "lines.txt"}],
    )
    assert columns(made, "prompt", "loras", "seed", "sampler") == [
        ("a cat, a dog", "rex;tom:0.5", 3, '{"guidance_scale": 4.0, "num_steps": 9}'),
        ("a dog and a cat", "tom;rex", 0, '{"guidance_scale": 4.0}'),
        ("a dog and a cat", "tom;rex", 1, '{"guidance_scale": 4.0}'),
    ]


def test_every_mistake_of_every_composition_is_told_at_once():
    made = expand(
        methods=["clora", "mergee", "single"],
        prompts=["{subjects}", "{9}"],
        pairs_of=["tom", "felix"],
        compositions=[
            ["tom", "nobody"],
            {"loras": ["tom", "rex"], "prompts": ["__none__"]},
            {"loras": ["tom"], "prompt_file": "gone.txt"},
            {"loras": ["tom", "rex"], "prompts": ["a cat and a dog"]},
        ],
    )
    assert not list(made.rows())
    told = [f"{place}: {text}" for place, text in made.findings]
    for part in (
        "methods: 'mergee' is no method; did you mean 'merge'?",
        "pairs_of: gives no set of 2",
        "compositions[0].loras: no LoRA 'nobody'",
        "compositions[0].prompts[1]: {9} is used",
        "compositions[1].prompts[0]: there is no list 'none'",
        "compositions[2].prompt_file: gone.txt does not exist",
        "compositions[3]: prompt 'a cat and a dog', method: method 'single' needs 1 concept",
    ):
        assert any(part in line for line in told), (part, told)


def test_an_empty_grid_is_a_mistake():
    assert expand(methods=["merge"]).findings == (
        ("compositions", "holds no LoRA sets; list some, or name pairs_of"),
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"compositions": [["tom"]] * 60}, "(all)"),
        ({"compositions": [["tom"]], "prompts": ["a cat"] * 60}, "(all)"),
        ({"compositions": [["tom"]], "prompts": ["a cat {background}"], "backgrounds": ["x"] * 60},
         "(all)"),
        ({"compositions": [["tom"]], "seeds": [1, 2, 3], "prompts": ["a cat"] * 20}, "(all)"),
        ({"compositions": [{"loras": ["tom"], "prompt_file": "long.txt"}]}, "(all)"),
        ({"pairs_of": [f"lora-{n}" for n in range(12)]}, "pairs_of"),
        ({"triples_of": [f"lora-{n}" for n in range(9)]}, "triples_of"),
    ],
)  # fmt: skip
def test_a_grid_of_too_many_rows_is_refused_and_not_written_out(
    monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], field: str
):
    """The limit is lowered to fifty; what matters is that building stops beyond it."""
    monkeypatch.setattr(grid_expand, "MAX_ROWS", 50)
    monkeypatch.setitem(FILES, "long.txt", "a cat\n" * 60)
    expansion = expand(methods=["merge"], **spec)
    assert not list(expansion.rows())
    told = dict(expansion.findings)
    assert "more than 50" in told[field]
    assert expansion.num_prompts <= 51


def test_of_many_mistakes_the_first_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(grid_expand, "MAX_FINDINGS", 10)
    found = expand(compositions=[["nobody"]] * 100, prompts=["{nothing}"] * 100).findings
    assert 10 < len(found) <= 24
    unknown = [f"lora-{n}" for n in range(1000)]
    assert len(expand(methods=["merge"], pairs_of=unknown).findings) == 10


def write(folder: Path, values: Mapping[str, Any] | str) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def test_seeds_are_a_list_or_a_range(tmp_path: Path):
    ranged, place = load_sweep(write(tmp_path, {"output": "o", "seeds": {"first": 5, "count": 3}}))
    assert ranged.seeds == (5, 6, 7)
    assert place == str(tmp_path / "sweep.yaml")


def test_every_problem_of_the_file_is_told_with_the_nearest_name(tmp_path: Path):
    path = write(
        tmp_path,
        {
            "outputt": "o",
            "seeds": {"first": 5, "cuont": 3},
            "compositions": [{"loras": ["a"], "promptfile": "x"}],
            "width": 13,
        },
    )
    with pytest.raises(InputError) as error:
        load_sweep(path)
    told = str(error.value)
    assert "outputt: is not a known setting; did you mean 'output'?" in told
    assert "is required" not in told
    assert "there is 'cuont'" in told
    assert "compositions.0.promptfile: is not a known setting; did you mean 'prompt_file'?" in told
    assert "width: Input should be greater than or equal to 64, got 13" in told


@pytest.mark.parametrize("text", ["[1, 2]", "a: b: c", "methods: {"])
def test_a_file_that_is_no_sweep_is_a_sentence(tmp_path: Path, text: str):
    with pytest.raises(InputError, match="1 problem"):
        load_sweep(write(tmp_path, text))


def test_a_sweep_whose_prompt_file_holds_no_prompt_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(FILES, "empty.txt", "# nothing yet\n\n")
    found = expand(compositions=[{"loras": ["tom"], "prompt_file": "empty.txt"}])
    assert [place for place, _ in found.findings] == ["compositions"]
    assert "give no prompt" in found.findings[0][1]


@pytest.mark.parametrize("weight", [0.8, 1.0, 0.123456789, 1.0000001, -2.5e-7])
def test_a_weight_is_written_as_the_number_it_is(weight: float):
    found = expand(
        compositions=[{"loras": [{"lora": "tom", "weight": weight}]}],
        prompts=["{subjects}"],
        seeds=[1],
        methods=["single"],
    )
    ((text,),) = columns(found, "loras")
    (request,), findings = requested_loras(text)
    assert not findings
    assert request.weight == weight
