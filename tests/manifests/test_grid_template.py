from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.grid.template import TemplateError, expand_template, listed_subjects

WORD = st.text(st.characters(categories=["Ll"]), min_size=1, max_size=6)


def test_placeholders_are_the_subjects_in_order_and_the_background():
    assert expand_template(
        "{subjects} {background}", subjects=["cat", "owl", "dog"], background="at home"
    ) == ("a cat, an owl and a dog at home",)
    assert expand_template("a {1} behind a {0}", subjects=["cat", "dog"]) == ("a dog behind a cat",)
    assert listed_subjects(["cat"]) == "a cat"


@given(st.lists(st.lists(WORD, min_size=1, max_size=3, unique=True), min_size=1, max_size=3))
def test_alternatives_give_their_whole_product_in_order(lists: list[list[str]]):
    template = " ".join("{" + "|".join([*words, words[0]]) + "}" for words in lists)
    expected = dict.fromkeys(" ".join(choice) for choice in product(*lists))
    assert list(expand_template(template, subjects=[])) == list(expected)


def test_lists_are_written_out_and_may_hold_lists_and_alternatives():
    words = {"time": ["by {day|night}", "at __hour__"], "hour": ["noon", "one"]}
    assert expand_template("a {0} __time__", subjects=["cat"], words=words) == (
        "a cat by day",
        "a cat by night",
        "a cat at noon",
        "a cat at one",
    )


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("a {2}", r"\{2\} is used with 2 concept LoRA"),
        ("a {subject}", "did you mean 'subjects'"),
        ("{0} {background}", "there are no backgrounds"),
        ("a {0} __tmie__", "did you mean 'time'"),
        ("a {0} __loop__", "holds itself"),
        ("a {0} {by night", "holds a brace"),
        ("__many__ __many__ __many__ __many__ __many__", "more than 10,000 prompts"),
    ],
)
def test_a_template_that_cannot_be_written_out_says_why(template: str, sentence: str):
    words = {"time": ["now"], "loop": ["and __loop__"], "many": [str(n) for n in range(10)]}
    with pytest.raises(TemplateError, match=sentence):
        expand_template(template, subjects=["cat", "dog"], words=words)
