from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from testbed_kit import ONE, TWO, concept, together, write_customconcept101

from clora_core.recipe.prompts.marked import mark_prompt
from clora_core.recipe.row import Lora
from manifests.grid.customconcept101 import read_customconcept101
from manifests.grid.noun_order import fitting_order, reindexed
from manifests.grid.testbed import Reading, ReadTestbed
from manifests.grid.testbed_spec import PublishedTestbed
from manifests.places.locations import read_bytes

CAT, OWL = concept("pet_cat7", "cat"), concept("owl_2", "barn owl", 2)


def read(folder: Path, entries: Any, *, block: Any = None, **files: Any) -> ReadTestbed:
    path = write_customconcept101(folder / "lists", entries, **files)
    given = {"customconcept101": f"lists/{path.name}", "loras": "loras", **(block or {})}
    bed = PublishedTestbed.model_validate(given)
    return read_customconcept101(
        Reading(
            bed=bed,
            sweep=str(folder / "sweep.yaml"),
            read_text=lambda place: read_bytes(place, max_bytes=10**6).decode(),
        )
    )


def told(bed: ReadTestbed) -> list[str]:
    return [f"{Path(problem.place).name} {problem}" for problem in bed.problems]


def test_a_set_is_a_composition_with_the_templates_of_its_file(tmp_path: Path):
    entries = [together(CAT, OWL), together(OWL, CAT)]
    bed = read(tmp_path, entries, block={"weight": 0.7, "trigger": "sks"})
    assert not bed.problems
    assert [(place, each.prompts) for place, each in bed.compositions] == [
        (place, tuple(template.strip() for template in TWO))
        for place in ("testbed pet_cat7 + owl_2", "testbed owl_2 + pet_cat7")
    ]
    assert bed.compositions[0][1].loras == [
        {"lora": "pet_cat7", "weight": 0.7},
        {"lora": "owl_2", "weight": 0.7},
    ]
    assert bed.items == (
        {
            "name": "pet_cat7",
            "uri": str(tmp_path / "loras/pet_cat7.safetensors"),
            "subject": "cat",
            "trigger": "sks",
        },
        {
            "name": "owl_2",
            "uri": str(tmp_path / "loras/owl_2.safetensors"),
            "subject": "barn owl",
            "trigger": "sks",
        },
    )


def test_a_concept_alone_has_the_templates_of_its_own_file(tmp_path: Path):
    bed = read(tmp_path, [CAT, OWL], block={"triggers": {"owl_2": "old"}})
    assert not bed.problems
    assert [each.prompts for _, each in bed.compositions] == 2 * [
        tuple(template.replace("{}", "{0}") for template in ONE)
    ]
    assert [item.get("trigger") for item in bed.items] == [None, "old"]


def test_a_lora_that_the_list_calls_by_two_nouns_keeps_each_where_it_stands(tmp_path: Path):
    entries = [together(CAT, OWL), together(OWL, concept("pet_cat7", "kitten", 2))]
    bed = read(tmp_path, entries)
    assert [item["subject"] for item in bed.items] == ["cat", "barn owl"]
    assert bed.compositions[1][1].loras == [
        {"lora": "owl_2"},
        {"lora": "pet_cat7", "subject": "kitten"},
    ]
    renamed = read(tmp_path, entries, block={"subjects": {"pet_cat7": "tom"}})
    assert renamed.compositions[1][1].loras == [{"lora": "owl_2"}, {"lora": "pet_cat7"}]


def test_every_bad_entry_and_line_is_told_with_place_value_rule_and_way_out(tmp_path: Path):
    entries = [
        together(concept("a;b", "cat"), OWL),
        together(concept("cat", "cat", prompt_filename=None), OWL),
        together(CAT, concept("pet_cat7", "cat", instance_data_dir="./elsewhere/pet_cat7")),
        together(CAT, OWL, prompts="prompts/gone.txt"),
        [CAT, OWL],
        [{"prompt_filename_compose": "prompts/two.txt"}],
        [],
        7,
        {**CAT, "weight": 2},
        together(CAT, OWL),
    ]
    two = ["a {0} and a {1}", "", "a {0} and a {0}", "{1} and {0} {here}", "__x__ {0} {1}"]
    block = {"triggers": {"nobody": "x"}, "subjects": {"pet_cat77": "x"}}
    found = told(read(tmp_path, entries, two=two, block=block))
    for start, part in {
        "dataset.json [0].name: ": "got 'a;b'",
        "dataset.json [1][0].prompt_filename: ": "got None",
        "dataset.json [2].instance_data_dir: ": "so both LoRAs would be 'pet_cat7'; rename one",
        "gone.txt (file): ": "does not exist; check the path",
        "dataset.json [4][1].prompt_filename: ": "did you mean 'prompt_filename_compose'?",
        "dataset.json [5]: ": "should be a set: concepts, and last its prompt file",
        "dataset.json [6]: ": "should be a set",
        "dataset.json [7]: ": "should be a mapping with instance_prompt, class_prompt",
        "dataset.json [8].weight: ": "is not a known setting",
        "two.txt line 3: ": "'a {0} and a {0}' has no {1}, so a LoRA has no noun in the prompt; wr",
        "two.txt line 4: ": "holds a brace",
        "two.txt line 5: ": "holds a brace, or a name between double underscores",
        "sweep.yaml testbed.triggers: ": "there is no 'nobody'",
        "sweep.yaml testbed.subjects: ": "did you mean 'pet_cat7'?",
    }.items():
        assert any(line.startswith(start) and part in line for line in found), (start, found)


def test_a_file_that_is_no_such_list_is_a_sentence(tmp_path: Path):
    for entries in ({"a": 1}, []):
        (line,) = told(read(tmp_path, entries))
        assert "should be a list of concepts, or of sets of them, got" in line


def test_a_prompt_file_without_a_prompt_is_told(tmp_path: Path):
    (line,) = told(read(tmp_path, [together(CAT, OWL)], two=["", " "]))
    assert line == "two.txt (file): holds no prompt; add one a line"


def test_two_concepts_of_one_noun_stand_where_the_template_names_them(tmp_path: Path):
    two = ["a {0} beside a {1}", "a {1} beside a {0}", "{0} and {1} and {0} again"]
    cats = together(concept("tom", "cat"), concept("felix", "cat", 2))
    bed = read(tmp_path, [cats], two=two)
    assert not bed.problems
    assert [([r["lora"] for r in each.loras], each.prompts) for _, each in bed.compositions] == [
        (["tom", "felix"], ("a {0} beside a {1}", "{0} and {1} and {0} again")),
        (["felix", "tom"], ("a {0} beside a {1}",)),
    ]


def test_a_noun_that_stands_elsewhere_in_the_prompt_is_told_or_left_out(tmp_path: Path):
    table = concept("table_1", "table")
    one = ["a table lamp on the {}", "the {}'s legs, tables", "a {} and a table"]
    (line,) = told(read(tmp_path, [table], one=one))
    assert line.startswith("dataset.json [0]: table: a noun stands elsewhere in 'a table lamp on")
    bed = read(tmp_path, [table], one=one, block={"skip_unfit": True})
    assert not bed.problems
    assert [each.prompts for _, each in bed.compositions] == [
        ("the {0}'s legs, tables", "a {0} and a table")
    ]
    assert [problem.field for problem in bed.left_out] == ["[0]"]


def test_a_noun_that_could_be_either_s_is_told(tmp_path: Path):
    cats = together(concept("tom", "cat"), concept("felix", "cat", 2))
    (line,) = told(read(tmp_path, [cats], two=["a {0}, this {0}, and a {1}"]))
    assert line == (
        "dataset.json [0]: cat, cat: a noun stands elsewhere in 'a {0}, this {0}, and a {1}' "
        "before its place; name another noun in testbed.subjects, or leave such prompts out with "
        "skip_unfit: true"
    )
    renamed = read(
        tmp_path,
        [cats],
        two=["a {0}, this {0}, and a {1}"],
        block={"subjects": {"felix": "tomcat"}},
    )
    assert not renamed.problems


@given(
    st.permutations(["cat", "cat", "barn owl", "owl"]).map(lambda nouns: nouns[:3]),
    st.lists(st.integers(0, 2), max_size=3),
    st.permutations([0, 1, 2]),
)
def test_in_the_order_that_fits_each_concept_stands_in_a_place_of_its_own(
    nouns: list[str], repeated: list[int], first: list[int]
):
    template = "x " + " y ".join(f"{{{place}}}" for place in [*first, *repeated])
    order = fitting_order(template, nouns)
    if order is None:
        assert repeated or len(set(nouns)) < 3 or {"barn owl", "owl"} <= set(nouns)
        return
    filled = reindexed(template, order).format(*(f"<{index}>" for index in order))
    assert filled == template.format(*(f"<{index}>" for index in range(3)))
    concepts = [
        Lora(name="", uri="", digest="", kind="concept", weight=1.0, subject=nouns[index])
        for index in order
    ]
    prompt = template.format(*nouns)
    starts, at = [], 2
    for place in [*first, *repeated]:
        starts.append((at, place))
        at += len(nouns[place]) + len(" y ")
    subjects = mark_prompt(prompt, concepts, ()).subjects
    assert [dict(starts)[start] for start, _ in subjects] == list(order)
