"""What the signs of a prompt mean, against A1111's rules written down as a table."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clora_core.recipe.errors import PromptError
from clora_core.recipe.reading.syntax import escaped, one_line_prompt, read_prompt, syntax_acts
from clora_core.recipe.reading.text import PromptText

UP, DOWN = 1.1, 1 / 1.1

TABLE = [
    ("normal text", [("normal text", 1)]),
    ("an (important) word", [("an ", 1), ("important", UP), (" word", 1)]),
    ("(unbalanced", [("unbalanced", UP)]),
    ("[unbalanced", [("unbalanced", DOWN)]),
    ("un)balanced]", [("un)balanced]", 1)]),
    (r"\(literal\]", [("(literal]", 1)]),
    (r"a \\ sign", [("a \\ sign", 1)]),
    (r"a \ sign", [("a  sign", 1)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", UP)]),
    ("((cat))", [("cat", UP * UP)]),
    ("[[cat]]", [("cat", DOWN * DOWN)]),
    ("([cat])", [("cat", 1)]),
    ("(cat:1.3)", [("cat", 1.3)]),
    ("(cat : 1.3 )", [("cat ", 1.3)]),
    ("(cat:.5) (dog:+2) (fox:-1)", [("cat", 0.5), (" ", 1), ("dog", 2), (" ", 1), ("fox", -1)]),
    ("((cat:1.3))", [("cat", 1.3 * UP)]),
    ("a cat:1.3) here", [("a cat:1.3) here", 1)]),
    ("(cat: dog)", [("cat: dog", UP)]),
    ("(at 10:30 pm)", [("at 10:30 pm", UP)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [
            ("a ", 1),
            ("house", 1.3 * UP * UP),
            (" ", UP),
            ("on", 1),
            (" a ", UP),
            ("hill", 0.5 * UP),
            (", sun, ", UP),
            ("sky", UP**4),
            (".", UP),
        ],
    ),
]


@pytest.mark.parametrize(("prompt", "expected"), TABLE)
def test_weighted_reads_emphasis_as_a1111_does(prompt, expected):
    read = read_prompt(prompt, "weighted")
    characters = [(c, w) for text, w in expected for c in text if not c.isspace()]
    found = zip(read.words, read.weight_of_each(), strict=True)
    found = [(c, w) for c, w in found if not c.isspace()]
    assert [c for c, _ in found] == [c for c, _ in characters]
    assert [w for _, w in found] == pytest.approx([w for _, w in characters])


@pytest.mark.parametrize(
    ("prompt", "words", "breaks"),
    [
        ("a cat BREAK a dog", "a cat a dog", (6,)),
        ("a cat  BREAK  a dog BREAK a fox", "a cat a dog a fox", (6, 12)),
        ("BREAK a cat", "a cat", (0,)),
        ("a BREAK BREAK b", "a b", (2, 2)),
        ("(a cat BREAK a dog:1.2)", "a cat a dog", (6,)),
        ("BREAKFAST for a cat", "BREAKFAST for a cat", ()),
    ],
)
def test_break_begins_a_chunk(prompt, words, breaks):
    read = read_prompt(prompt, "weighted")
    assert (read.words, read.breaks) == (words, breaks)


def test_words_of_different_weights_stay_words_apart():
    assert read_prompt("red(cat)s", "weighted").words == "red cat s"


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("(cat:1.3) and a dog", "(cat:1.3)"),
        ("a ((cat))", "((cat))"),
        ("[cat]", "[cat]"),
        (r"a cat \(black\)", r"\\("),
        ("a cat BREAK a dog", "BREAK"),
        ("a cat (", "("),
    ],
)
def test_plain_refuses_by_name_what_others_would_read_otherwise(prompt, named):
    with pytest.raises(PromptError) as refusal:
        read_prompt(prompt, "plain")
    assert f"holds '{named}'" in str(refusal.value)
    assert "set `prompt_syntax: weighted` under sampler" in str(refusal.value)


@pytest.mark.parametrize("syntax", ["plain", "weighted"])
@pytest.mark.parametrize(
    ("prompt", "named", "way_out"),
    [
        ("a cat <lora:x:0.8>", "<lora:x:0.8>", "column loras"),
        ("a cat <lyco:x:1>", "<lyco:x:1>", "column loras"),
        ("a cat <hypernet:x:1>", "<hypernet:x:1>", "take it out"),
        ("a {red|blue} cat", "{red|blue}", "sweep"),
        ("a {cat", "{", "sweep"),
        ("a __colour__ cat", "__colour__", "sweep"),
        ("a cat AND a dog", "AND", "write 'and'"),
        ("embedding:easynegative", "embedding:easynegative", "write its name without"),
        ("a cat --n blurry", "--n", "prompt_file"),
    ],
)
def test_what_belongs_elsewhere_is_refused_under_both(syntax, prompt, named, way_out):
    with pytest.raises(PromptError) as refusal:
        read_prompt(prompt, syntax)
    assert f"holds '{named}'" in str(refusal.value)
    assert way_out in str(refusal.value)


@pytest.mark.parametrize("prompt", ["[cat:dog:0.5]", "[cat::10]", "[cat|dog]"])
def test_a_prompt_that_changes_over_the_steps_is_refused(prompt):
    with pytest.raises(PromptError, match="changes over the steps"):
        read_prompt(prompt, "weighted")


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("(cat:1.2.3)", "'1.2.3'"),
        ("(cat:1,3)", "':1,3' in a bracket, where"),
        ("(cat:1.3, dog:1.2)", "':1.3' in a bracket, where"),
        ("(cat:1.3", "':1.3' in a bracket, where"),
        ("(cat:11)", "'11'"),
        ("((cat:9):9)", "weight of 81"),
        ("(" * 65 + "cat", "more than 64 brackets"),
    ],
)
def test_a_weight_that_is_none_is_refused(prompt, named):
    with pytest.raises(PromptError, match=named):
        read_prompt(prompt, "weighted")


@pytest.mark.parametrize(
    "prompt", ["a cat :)", "i <3 cats", "a -- b", "50 % of a_b__", "__", "a: b", "R&B"]
)
def test_signs_that_say_the_same_to_everyone_are_words(prompt):
    assert read_prompt(prompt, "plain") == read_prompt(prompt, "weighted") == PromptText(prompt)


@given(words=st.text("ab ()[]\\:1.,", max_size=30))
def test_escaped_words_are_read_as_they_are(words):
    assert read_prompt(escaped(words, "weighted"), "weighted") == PromptText(words)


@given(prompt=st.text("ab ()[]\\:1.BREAK|", max_size=30))
def test_plain_is_what_both_readings_agree_on(prompt):
    try:
        read = read_prompt(prompt, "plain")
    except PromptError:
        assert syntax_acts("weighted", [prompt])
    else:
        assert read == PromptText(prompt) == read_prompt(prompt, "weighted")


@given(data=st.data(), prompt=st.sampled_from(["a (cat BREAK dog:1.2) fox", "BREAK (a) b", "a b"]))
def test_the_parts_of_a_text_make_the_text(data, prompt):
    read = read_prompt(prompt, "weighted")
    cut = data.draw(st.integers(0, len(read)))
    parts = read.leading_breaks() + read[:cut] + read[cut:]
    assert parts.words == read.words
    assert parts.weight_of_each() == read.weight_of_each()
    assert parts.breaks == read.breaks


def test_line_breaks_and_tabs_are_spaces():
    assert one_line_prompt("a cat\r\n\tand\u2028a dog") == "a cat and a dog"
