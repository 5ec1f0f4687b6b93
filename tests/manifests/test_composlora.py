import json
from itertools import combinations, product
from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testbed_kit import GROUPS, write_composlora

from clora_core.recipe.prompts.marked import mark_prompt
from manifests.grid.composlora import read_composlora
from manifests.grid.expand import MAX_FINDINGS
from manifests.grid.testbed import Reading, ReadTestbed
from manifests.grid.testbed_spec import PublishedTestbed
from manifests.rows.loras import named_lora, requested_loras


def read(groups: Any = GROUPS, *, text: str | None = None, **block: Any) -> ReadTestbed:
    """Read a list as a sweep in ``/s`` does."""
    given = {"composlora": "list.json", "loras": "loras", "prefix": "", "sizes": [2], **block}
    content = json.dumps(groups) if text is None else text
    bed = PublishedTestbed.model_validate(given)
    return read_composlora(Reading(bed=bed, sweep="/s/sweep.yaml", read_text=lambda _: content))


def made(bed: ReadTestbed) -> list[tuple[tuple[str, ...], str]]:
    """Return LoRAs and prompt of every composition."""
    assert [str(problem) for problem in bed.problems] == []
    return [
        (tuple(lora["lora"] for lora in each.loras), prompt)
        for _, each in bed.compositions
        for prompt in each.prompts or ()
    ]


def published(groups: dict[str, list[dict[str, Any]]], sizes: list[int], prefix: str) -> Any:
    """The definition: some of the other groups, one LoRA of each, the character first."""
    others = [group for group in groups if group != "character"]
    for size in sizes:
        for some in combinations(others, size - 1):
            for loras in product(groups["character"], *(groups[group] for group in some)):
                words = [word for lora in loras for word in lora["trigger"]]
                prompt = prefix + ", " + ", ".join(words) if prefix else ", ".join(words)
                yield tuple(lora["id"] for lora in loras), prompt


def with_all_triggers(bed: ReadTestbed, loras: Any, prompt: str) -> str:
    """Return the prompt of a method that shows every trigger in one text."""
    requests, findings = requested_loras(loras)
    assert not findings
    named = [named_lora(request, bed.entries[request.lora]) for request in requests]
    concepts = [lora for lora in named if lora.kind == "concept"]
    return mark_prompt(prompt, concepts, range(len(concepts))).text


@st.composite
def lists(draw: st.DrawFn) -> dict[str, list[dict[str, Any]]]:
    """Lists whose words are all different; groups in any order, the character anywhere."""
    names = draw(st.permutations(["character", "coat", "place", "thing"]))
    count = iter(range(10_000))
    return {
        group: [
            {
                "id": f"{group}_{number}",
                "trigger": [f"w{next(count)} of it" for _ in range(draw(st.integers(1, 3)))],
            }
            for number in range(draw(st.integers(1, 3)))
        ]
        for group in names
    }


@given(lists(), st.lists(st.integers(1, 4), min_size=1, unique=True), st.sampled_from(["", "a b"]))
def test_compositions_and_prompts_are_those_of_the_definition(
    groups: dict[str, list[dict[str, Any]]], sizes: list[int], prefix: str
):
    bed = read(groups, sizes=sizes, prefix=prefix)
    assert made(bed) == list(published(groups, sizes, prefix))
    for _, each in bed.compositions:
        (prompt,) = each.prompts or ()
        assert with_all_triggers(bed, each.loras, prompt) == prompt


def test_each_concept_has_its_further_words_in_its_own_variant_alone():
    bed = read(sizes=[3], prefix="sharp", subjects={"character_2": "1woman"})
    place, each = next(c for c in bed.compositions if "character_2 + clothing_1 + style_2" in c[0])
    assert place == "testbed character_2 + clothing_1 + style_2"
    (prompt,) = each.prompts or ()
    assert prompt == "sharp, qxv, 1woman, red scarf, rain coat, chalk, chalk drawing"
    concepts = [named_lora(r, bed.entries[r.lora]) for r in requested_loras(each.loras)[0]]
    texts = [mark_prompt(prompt, concepts, active).text for active in ((), (0,), (2,))]
    assert texts == [
        "sharp, 1woman, rain coat, chalk",
        "sharp, qxv, 1woman, red scarf, rain coat, chalk",
        "sharp, 1woman, rain coat, chalk, chalk drawing",
    ]


def test_nothing_of_an_entry_is_lost_in_the_catalog():
    bed = read(weight=0.8)
    assert bed.items[0] == {
        "name": "character_1",
        "uri": "/s/loras/character_1.safetensors",
        "subject": "old miller",
        "trigger": "old miller, grey beard",
        "title": "Miller",
    }
    assert bed.items[1]["source_url"] == "https://x.test/2"
    assert bed.compositions[0][1].loras == [
        {"lora": "character_1", "weight": 0.8},
        {"lora": "clothing_1", "weight": 0.8},
    ]


def test_a_group_can_be_one_of_styles_and_its_words_stay_in_the_prompt():
    bed = read(styles=["style"])
    assert {name: entry.kind for name, entry in bed.entries.items()} == {
        "character_1": "concept",
        "character_2": "concept",
        "clothing_1": "concept",
        "style_1": "style",
        "style_2": "style",
        "object_1": "concept",
    }
    assert made(bed) == list(published(GROUPS, [2], ""))
    for _, each in bed.compositions:
        (prompt,) = each.prompts or ()
        assert with_all_triggers(bed, each.loras, prompt) == prompt


def told(bed: ReadTestbed) -> list[str]:
    assert not bed.compositions
    return [f"{problem.place} {problem}" for problem in bed.problems]


def test_every_bad_entry_is_told_with_place_value_rule_and_way_out():
    groups = {
        "character": [
            {"id": "a;b", "trigger": ["one"]},
            {"id": "character_2", "trigger": "one, two", "strength": 2},
            {"id": "character_3", "trigger": []},
            {"trigger": ["nobody"]},
            "character_5",
            {"id": "character_6", "trigger": ["a {brace}", "a __list__"]},
            {"id": "character_7", "trigger": ["x" * 600, "y" * 600]},
        ],
        "clothing": [],
        "object": [{"id": "character_6", "trigger": ["twice"]}],
    }
    sentences = told(read(groups))
    for start, part in {
        "/s/list.json character[0].id: ": "without ; | :",
        "/s/list.json character[1].strength: ": "is not a known setting",
        "/s/list.json character[1].trigger: ": "got 'one, two'",
        "/s/list.json character[2].trigger: ": "got []",
        "/s/list.json character[3].id: ": "is required and not given",
        "/s/list.json character[4]: ": "should be a mapping with id, name, trigger, url, got 'char",
        "/s/list.json character[5].trigger[0]: ": "take it out, got 'a {brace}'",
        "/s/list.json character[5].trigger[1]: ": "take it out, got 'a __list__'",
        "/s/list.json character, character_7.trigger: ": "at most 1000 characters",
        "/s/list.json clothing: ": "should be a list of LoRAs, got []",
        "/s/list.json object[0].id: ": "is used twice, first in character[5], got 'character_6'",
    }.items():
        assert any(s.startswith(start) and part in s for s in sentences), (start, sentences)
    assert len(sentences) == 11


def test_every_setting_that_the_list_does_not_bear_out_is_told():
    block = {
        "sizes": [2, 5],
        "styles": ["stile", "style"],
        "subjects": {"object_9": "kite", "object_1": "kit", "style_1": "woodcut"},
        "prefix": "sharp {now}",
    }
    sentences = told(read(**block))
    for part in (
        "testbed.sizes: has 5, and there are 4 groups",
        "testbed.styles: there is no 'stile' in list.json; did you mean 'style'?",
        "testbed.subjects: there is no 'object_9' in list.json; did you mean 'object_1'?",
        "testbed.subjects.object_1: is none of the words of 'object_1', got 'kit'; take one of",
        "testbed.subjects.style_1: 'style_1' is a style, which has no subject",
        "testbed.prefix: holds a brace",
    ):
        assert any(s.startswith(f"/s/sweep.yaml {part}") for s in sentences), (part, sentences)
    assert len(sentences) == 6


def test_a_subject_that_stands_in_another_s_words_first_is_told():
    groups = {
        "character": [{"id": "c", "trigger": ["hero", "in a castle"]}],
        "place": [{"id": "p", "trigger": ["castle", "tower"]}],
    }
    (sentence,) = told(read(groups))
    assert "testbed c + p: with its triggers the prompt would be" in sentence
    assert "; name another word in testbed.subjects, or leave such prompts out" in sentence
    bed = read(groups, skip_unfit=True)
    assert not bed.compositions
    assert not bed.problems
    assert [problem.field for problem in bed.left_out] == ["testbed c + p"]
    assert made(read(groups, subjects={"p": "tower"})) == [
        (("c", "p"), "hero, in a castle, castle, tower")
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[1]", "should be a mapping of groups"),
        ("{", "is not valid JSON"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"characters": [{"id": "x", "trigger": ["y"]}], "b": [{"id": "z", "trigger": ["w"]}]}',
         "has no group 'character', of which every composition has a LoRA; did you mean 'charact"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_list_is_a_sentence(text: str, part: str):
    (sentence,) = told(read(text=text))
    assert part in sentence


def test_a_list_that_stands_for_billions_is_refused_while_it_is_counted():
    groups = {
        group: [{"id": f"{group}{n}", "trigger": [f"{group}{n}"]} for n in range(200)]
        for group in ("character", "a", "b", "c", "d", "e")
    }
    (sentence,) = told(read(groups, sizes=[6]))
    assert "stands for 64,000,000,000,000 compositions" in sentence
    many = {f"g{n}": [{"id": f"g{n}", "trigger": [f"g{n}"]}] for n in range(200)}
    (sentence,) = told(read({**many, "character": groups["character"]}, sizes=[1, 16]))
    assert f"stands for {200 + 200 * comb(200, 15):,} compositions" in sentence


def test_of_a_list_of_nothing_but_mistakes_the_first_are_told():
    assert len(told(read({"character": [0] * 5000}))) == MAX_FINDINGS


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"customconcept101": "x"}, "should name one list"),
        ({"composlora": None}, "should name one list"),
        ({"prefix": None}, "needs prefix"),
        ({"trigger": "sks"}, "has trigger, which composlora does not know"),
        ({"sizes": [2, 2]}, "names a size twice"),
        ({"composlora": None, "customconcept101": "x"}, "has sizes, prefix, which customconcept"),
    ],
)
def test_a_block_of_two_minds_is_refused(block: dict[str, Any], part: str):
    with pytest.raises(ValueError, match=part):
        read(**block)


def test_the_fixture_has_the_published_form(tmp_path: Path):
    assert read(text=write_composlora(tmp_path).read_text()) == read()
