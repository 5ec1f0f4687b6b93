"""Every name that a user may give, misspelt as people misspell: one problem, with the right name.

The names are those of the models, so a new setting is among them by itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from input_kit import row, write_base_model, write_catalog, write_lora

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.near_names import folded
from clora_core.recipe.other_names import OTHER_NAMES
from jobs.job.catalog_spec import CatalogSettings, load_catalog
from jobs.job.job_file import JobFile, ScoringSettings, parse_job
from manifests.grid.axis_names import ITEM, SCENE
from manifests.grid.spec import SweepComposition, SweepSpec, load_sweep
from manifests.grid.testbed_spec import PublishedTestbed
from manifests.loras.catalog import LoraEntry, read_lora_catalog
from manifests.loras.files import LoraFiles
from manifests.loras.fit import LoraFit
from manifests.rows.check import check_rows
from manifests.rows.columns import COLUMNS
from manifests.rows.loras import LoraRequest
from manifests.rows.regions import RegionRequest
from manifests.rows.rules import RowModel, RowRules
from manifests.rows.sampler_settings import SAMPLER_SECTION
from manifests.tables.readers import RawRow
from manifests.text.problems import InputError, Problem
from manifests.text.sections import OWN_WORDS, Section, section_of
from pipelines.ledger.failure_budget import FailureBudget
from pipelines.session.resources import Resources

SAMPLER = SamplerConfig(guide_until_step=0)
SETTINGS = {
    **SAMPLER.model_dump(),
    "preset": "paper",
    "map_size": 8,
    "gate_masks_until_step": 3,
    "gate_mask_source": "base",
    "guide_until_step": 0,
}


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


MISSPELLINGS: dict[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "a capital": str.capitalize,
    "camelCase": camel,
    "a dash": lambda name: name.replace("_", "-"),
    "a space": lambda name: name.replace("_", " "),
    "nothing between": lambda name: name.replace("_", ""),
    "a plural": lambda name: f"{name}s",
    "no plural": lambda name: name.removesuffix("s"),
    "a doubled letter": lambda name: name[:2] + name[1:],
    "a letter left out": lambda name: name[: len(name) // 2] + name[len(name) // 2 + 1 :],
    "two swapped": lambda name: name[:1] + name[2:3] + name[1:2] + name[3:],
    "a wrong letter": lambda name: name[:-2] + "q" + name[-1:],
}


@dataclass(frozen=True, kw_only=True)
class Door:
    """A way in: where names are given, and what is said of them.

    Attributes:
        section: The names.
        values: A good value of each.
        base: Those without which nothing is good.
        elsewhere: Names that another door is tried with.
        problems: Returns what is said of a mapping.
    """

    section: Section
    values: Mapping[str, Any]
    base: Sequence[str]
    problems: Callable[[dict[str, Any]], Sequence[Problem]]
    elsewhere: frozenset[str] = frozenset()

    def said(self, name: str, wrong: str) -> Sequence[Problem]:
        """Return what is said of a good mapping with ``name`` spelt ``wrong``."""
        given = {base: self.values[base] for base in self.base if base != name}
        return self.problems({**given, wrong: self.values[name]})

    def is_known(self, wrong: str, name: str) -> bool:
        """Return whether ``wrong`` is a name for something else here, or a word of its own."""
        others = {folded(each) for each in self.section.names if each != name}
        if wrong in self.section.names or folded(wrong) in others:
            return True
        return self.section.is_open and wrong in OWN_WORDS | self.section.own_words


def refused(read: Callable[[], object]) -> Sequence[Problem]:
    try:
        read()
    except InputError as error:
        return error.problems
    return ()


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Door]:
    folder = tmp_path_factory.mktemp("names")
    catalog = read_lora_catalog(str(write_catalog(folder)))
    write_base_model(folder / "base")
    write_lora(folder / "files/cat.safetensors")
    (folder / "mask.png").write_bytes(b"mask")
    model = RowModel(digest="d", side_px=128, lora_fit=LoraFit(model_width=96), sampler=SAMPLER)
    rules = RowRules(
        catalog=catalog,
        lora_files=LoraFiles(),
        base_models={"": model, "big": model},
        method="clora",
        dtype="float32",
    )

    def yaml_file(values: object) -> Path:
        path = folder / "it.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    def rows(values: dict[str, Any]) -> Sequence[Problem]:
        place = str(folder / "m.csv")
        raw = [RawRow(place=place, line=n, values=values) for n in (1, 2)]
        return check_rows(raw, rules, place=place).problems

    def job(section: str) -> Callable[[dict[str, Any]], Sequence[Problem]]:
        base = {"manifest": "m.csv", "output": "out"}
        return lambda values: refused(
            lambda: parse_job({**base, section: values} if section else values, place="/j.yaml")
        )

    def sweep(section: str) -> Callable[[dict[str, Any]], Sequence[Problem]]:
        def problems(values: dict[str, Any]) -> Sequence[Problem]:
            inner = [values] if section == "compositions" else values
            whole = {"output": "out", section: inner} if section else values
            return refused(lambda: load_sweep(yaml_file(whole)))

        return problems

    def spec(section: str) -> Callable[[dict[str, Any]], Sequence[Problem]]:
        base = {
            "items": [{"item": "a", "loras": ["cat"]}],
            "scenes": [{"scene": "s", "prompt": "a cat"}],
            "output": "out",
        }
        return lambda values: refused(
            lambda: load_catalog(
                yaml_file({**base, section: [values]} if section else {**base, **values})
            )
        )

    def loras(values: dict[str, Any]) -> Sequence[Problem]:
        return rows(row(loras=[values], prompt="a cat", method="single"))[:1]

    def region(values: dict[str, Any]) -> Sequence[Problem]:
        return loras({"lora": "cat", "region": values})

    def lora_catalog(values: dict[str, Any]) -> Sequence[Problem]:
        return read_lora_catalog(str(yaml_file({"loras": [values]}))).problems

    shared = {
        "base_model": "big",
        "method": "merge",
        "negative_prompt": "blur",
        "width": 128,
        "height": 128,
        "loras": ["cat"],
        "sampler": {"num_steps": 40},
    }
    columns = {**shared, "prompt": "a cat", "seed": 3, "row_id": "a"}
    settings_of_job = {
        "manifest": "m.csv",
        "output": "out",
        "loras": "l.yaml",
        "base_model": "base",
        "base_models": {"big": "base"},
        "method": "merge",
        "sampler": {"num_steps": 60},
        "scoring": {},
        "fused_at": "f",
        "resources": {},
        "failure_budget": {},
    }
    resources = {**Resources().model_dump(), "max_actors": 2, "gpus_per_actor": 1, "max_lanes": 9}
    axes = {
        "looks": {"plain": []},
        "seeds": [1],
        "keep": 3,
        "may_miss": 2,
        "items": [{"item": "a"}],
        "scenes": [{"scene": "s", "prompt": "a cat"}],
    }
    composition = {"loras": ["cat"], "prompts": ["a cat"], "prompt_file": "p.txt"}
    bed = {
        "composlora": "c.json",
        "customconcept101": "d.json",
        "loras": "files",
        "weight": 1.0,
        "subjects": {},
        "skip_unfit": True,
        "sizes": [2],
        "prefix": "",
        "styles": [],
        "trigger": "<new1>",
        "triggers": {},
    }
    lora = {"lora": "cat", "weight": 1.0, "subject": "cat", "trigger": "x", "region": [0, 0, 1, 1]}
    entry = {
        "name": "cat",
        "uri": "cat.safetensors",
        "subject": "cat",
        "trigger": "x",
        "kind": "concept",
        "weight": 1.0,
        "license": "MIT",
        "source_url": "https://x.test",
        "sha256": "0" * 64,
    }
    of_sweep = {
        "output": "out",
        "base_model": "base",
        "loras": "l.yaml",
        "methods": ["clora"],
        "compositions": [composition],
        "pairs_of": ["cat", "dog"],
        "triples_of": ["cat", "dog", "fox"],
        "testbed": {"composlora": "c.json", "loras": "files", "prefix": ""},
        "prompts": ["{subjects}"],
        "backgrounds": ["in snow"],
        "words": {"a": ["b"]},
        "seeds": [1],
        "negative_prompt": "blur",
        "width": 128,
        "height": 128,
        "sampler": {},
        "samplers": [{}],
        "scoring": {},
        "resources": {},
    }
    return {
        "job": Door(
            section=section_of(JobFile),
            values=settings_of_job,
            base=("manifest", "output"),
            problems=job(""),
        ),
        "scoring": Door(
            section=section_of(ScoringSettings),
            values={"references": 3, "model": "dino", "references_at": "r", "windows": False},
            base=(),
            problems=job("scoring"),
        ),
        "resources": Door(
            section=section_of(Resources), values=resources, base=(), problems=job("resources")
        ),
        "failure_budget": Door(
            section=section_of(FailureBudget),
            values={"share": 0.5, "min_rows": 3},
            base=(),
            problems=job("failure_budget"),
        ),
        "sampler": Door(
            section=SAMPLER_SECTION,
            values=SETTINGS,
            base=("gate_mask_source", "guide_until_step"),
            problems=job("sampler"),
        ),
        "manifest": Door(
            section=COLUMNS, values=columns, base=("prompt", "seed", "loras"), problems=rows
        ),
        "LoRA of a row": Door(
            section=section_of(LoraRequest), values=lora, base=("lora",), problems=loras
        ),
        "region": Door(
            section=section_of(RegionRequest),
            values={"box": [0, 0, 1, 1], "mask": str(folder / "mask.png"), "mode": "replace"},
            base=(),
            problems=lambda values: region(
                values if {"box", "mask"} & values.keys() or "replace" not in values.values()
                else {"box": [0, 0, 1, 1], **values}
            ),
        ),
        "LoRA catalog": Door(
            section=section_of(LoraEntry), values=entry, base=("name", "uri"), problems=lora_catalog
        ),
        "sweep": Door(
            section=section_of(SweepSpec), values=of_sweep, base=("output",), problems=sweep("")
        ),
        "composition": Door(
            section=section_of(SweepComposition),
            values=composition,
            base=(),
            problems=sweep("compositions"),
        ),
        "ComposLoRA": Door(
            section=section_of(PublishedTestbed),
            values=bed,
            base=("composlora", "prefix", "loras"),
            problems=sweep("testbed"),
            elsewhere=frozenset({"customconcept101", "trigger", "triggers"}),
        ),
        "CustomConcept101": Door(
            section=section_of(PublishedTestbed),
            values=bed,
            base=("customconcept101", "loras"),
            problems=sweep("testbed"),
            elsewhere=frozenset({"composlora", "prefix", "sizes", "styles"}),
        ),
        "catalog spec": Door(
            section=section_of(CatalogSettings), values=axes, base=(), problems=spec("")
        ),
        "items": Door(
            section=ITEM, values={**shared, "item": "a"}, base=("item",), problems=spec("items")
        ),
        "scenes": Door(
            section=SCENE,
            values={**shared, "scene": "s", "prompt": "a cat"},
            base=("scene", "prompt"),
            problems=spec("scenes"),
        ),
    }  # fmt: skip


NAMES = (
    "job", "scoring", "resources", "failure_budget", "sampler", "manifest", "LoRA of a row",
    "region", "LoRA catalog", "sweep", "composition", "ComposLoRA", "CustomConcept101",
    "catalog spec", "items", "scenes",
)  # fmt: skip


def last(problem: Problem) -> str:
    return problem.field.rpartition(".")[2]


def unfound(door: Door, cases: Iterator[tuple[str, str]]) -> list[tuple[str, str, list[str]]]:
    """Return (right, wrong, what was said) of every case without its one problem."""
    found = ((name, wrong, door.said(name, wrong)) for name, wrong in cases)
    return [
        (name, wrong, [str(problem) for problem in said])
        for name, wrong, said in found
        if [last(problem) for problem in said] != [wrong] or repr(name) not in said[0].problem
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_misspelt_in_the_usual_ways_is_one_problem_with_the_right_name(
    doors: Mapping[str, Door], name: str
):
    door = doors[name]
    names = set(door.section.names) - door.elsewhere
    assert names <= door.values.keys(), "a good value of every name"
    cases = (
        (right, wrong)
        for right in sorted(names)
        for how, misspell in MISSPELLINGS.items()
        for wrong in [misspell(right)]
        if wrong != right
        and not door.is_known(wrong, right)
        # A word of four letters is too near to others.
        and not (how == "a wrong letter" and door.section.is_open and len(right) < 5)
    )
    assert not unfound(door, cases)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_another_tool_is_one_problem_with_ours(doors: Mapping[str, Door], name: str):
    door = doors[name]
    cases = [
        (right, wrong)
        for right in sorted(set(door.section.names) - door.elsewhere)
        for wrong in OTHER_NAMES.get(right, ())
        if not door.is_known(wrong, right) and wrong not in ("size", "resolution")
    ]
    assert not unfound(door, iter(cases))


@pytest.mark.parametrize("name", ["num_steps", "steps", "cfg", "Guidance_Scale", "preset"])
def test_a_sampler_setting_at_the_top_of_a_job_belongs_under_sampler(
    doors: Mapping[str, Door], name: str
):
    values = {"manifest": "m.csv", "output": "out", name: 30}
    (problem,) = doors["job"].problems(values)
    assert problem.field == name
    assert "is not a known setting here; write it under 'sampler', as '" in problem.problem


def test_settings_of_other_sections_at_the_top_of_a_job_name_their_section(
    doors: Mapping[str, Door],
):
    values = {"manifest": "m.csv", "output": "out", "dtype": "float16", "batch_size": 4}
    problems = {problem.field: problem.problem for problem in doors["job"].problems(values)}
    assert problems["dtype"].endswith("write it under 'resources', as 'dtype'")
    assert problems["batch_size"].endswith("'resources', as 'rows_per_unit' or 'max_lanes'")
    assert len(problems) == 2


def test_a_name_that_may_mean_two_is_asked_about_and_read_as_neither(doors: Mapping[str, Door]):
    (problem,) = doors["resources"].problems({"gpus": 4})
    assert problem.problem == ("is not a known setting; did you mean 'actors' or 'gpus_per_actor'?")


def test_a_wrong_name_beside_the_right_one_is_to_be_taken_out(doors: Mapping[str, Door]):
    (problem,) = doors["job"].problems({"manifest": "m.csv", "Manifest": "n.csv", "output": "o"})
    assert problem.field == "Manifest"
    assert "'manifest' is, and is given too: take one of them out" in problem.problem


def test_a_mistake_in_a_value_under_a_wrong_name_is_found_in_the_same_go(doors: Mapping[str, Door]):
    fields = [each.field for each in doors["resources"].problems({"Actors": 0})]
    assert fields == ["resources.Actors", "resources.actors"]
