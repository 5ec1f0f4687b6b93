"""The texts of the variants: every rule for what people write in prompts."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.marked import mark_prompt
from clora_core.recipe.row import Lora


def concept(subject, trigger=None, *, name=None):
    return Lora(
        name=name or f"{subject}-lora",
        uri="",
        digest="",
        kind="concept",
        subject=subject,
        trigger=trigger,
    )


def words(marked):
    """What the spans cut out of the text."""
    return (
        [marked.text[slice(*span)] for span in marked.subjects],
        [span and marked.text[slice(*span)] for span in marked.triggers],
    )


CAT_AND_DOG = (concept("cat", "sks"), concept("dog", "zwx"))


@pytest.mark.parametrize(
    ("active", "text"),
    [
        ((), "a cat and a dog"),
        ((0,), "a sks cat and a dog"),
        ((1,), "a cat and a zwx dog"),
        ((0, 1), "a sks cat and a zwx dog"),
    ],
)
def test_triggers_stand_before_their_own_subjects_and_only_the_active_ones(active, text):
    assert mark_prompt("a cat and a dog", CAT_AND_DOG, active).text == text


def test_the_spans_cut_out_subject_and_trigger():
    marked = mark_prompt("a cat and a dog", CAT_AND_DOG, (1,))
    assert words(marked) == (["cat", "dog"], [None, "zwx"])


def test_the_order_of_loras_does_not_change_the_text():
    backwards = CAT_AND_DOG[::-1]
    marked = mark_prompt("a cat and a dog", backwards, (0, 1))
    assert marked.text == "a sks cat and a zwx dog"
    assert words(marked) == (["dog", "cat"], ["zwx", "sks"])


@pytest.mark.parametrize("prompt", ["a Cat", "CATS everywhere", "the cat's hat", "cat"])
def test_case_plural_and_possessive_are_the_same_subject(prompt):
    marked = mark_prompt(prompt, [concept("cat", "sks")], (0,))
    [found], [trigger] = words(marked)
    assert found.lower().startswith("cat")
    assert trigger == "sks"
    assert marked.text.replace("sks ", "") == prompt


def test_a_plural_in_es_is_the_same_subject():
    marked = mark_prompt("two foxes", [concept("fox", "sks")], (0,))
    assert marked.text == "two sks foxes"
    assert words(marked)[0] == ["foxes"]


@pytest.mark.parametrize("prompt", ["a catalogue", "a tomcat", "a cat2", "a dog", ""])
def test_a_part_of_a_word_is_no_subject(prompt):
    with pytest.raises(PromptError, match="subject 'cat' of LoRA 'cat-lora' is not in the prompt"):
        mark_prompt(prompt, [concept("cat")], ())


def test_a_subject_of_several_words_is_found_across_any_blanks():
    marked = mark_prompt("a plushie\n  dog", [concept("plushie dog", "sks")], (0,))
    assert marked.text == "a sks plushie\n  dog"
    assert words(marked)[0] == ["plushie\n  dog"]


def test_signs_in_a_subject_are_meant_literally():
    marked = mark_prompt("axb and a.b", [concept("a.b", "sks")], (0,))
    assert marked.text == "axb and sks a.b"


def test_a_trigger_of_several_words_stays_together():
    marked = mark_prompt("a cat", [concept("cat", " the sks zwx ")], (0,))
    assert marked.text == "a the sks zwx cat"
    assert words(marked) == (["cat"], ["the sks zwx"])


@pytest.mark.parametrize("trigger", [None, "", "  "])
def test_without_a_trigger_the_text_stays(trigger):
    marked = mark_prompt("a cat", [concept("cat", trigger)], (0,))
    assert marked.text == "a cat"
    assert marked.triggers == (None,)


def test_concepts_of_one_noun_take_its_occurrences_in_the_rows_order():
    men = [concept("man", "sks", name="one"), concept("man", "zwx", name="two")]
    prompt = "a man and a man on a beach"
    assert mark_prompt(prompt, men, (0,)).text == "a sks man and a man on a beach"
    assert mark_prompt(prompt, men, (1,)).text == "a man and a zwx man on a beach"
    one, two = mark_prompt(prompt, men, ()).subjects
    assert one < two


def test_a_noun_that_comes_too_seldom_is_refused_with_how_often_it_comes():
    men = [concept("man", name="one"), concept("man", name="two")]
    with pytest.raises(PromptError, match=r"'man' of LoRA 'two'.* once more \(it occurs 1 time"):
        mark_prompt("a man", men, ())


def test_a_longer_subject_chooses_first():
    both = [concept("cat", "sks"), concept("black cat", "zwx")]
    marked = mark_prompt("a black cat and a cat", both, (0, 1))
    assert marked.text == "a zwx black cat and a sks cat"
    assert words(marked)[0] == ["cat", "black cat"]


def test_two_concepts_may_have_one_trigger():
    both = [concept("cat", "sks"), concept("dog", "sks")]
    assert mark_prompt("a cat and a dog", both, (0, 1)).text == "a sks cat and a sks dog"
    assert words(mark_prompt("a cat and a dog", both, (1,))) == (["cat", "dog"], [None, "sks"])


@pytest.mark.parametrize(
    ("trigger", "text"),
    [
        ("sks cat", "a sks cat and a dog"),
        ("cat in szn style", "a cat in szn style and a dog"),
        ("a sks Cat toy", "a a sks Cat toy and a dog"),
    ],
)
def test_a_trigger_with_the_subject_in_it_takes_its_place(trigger, text):
    concepts = [concept("cat", trigger), concept("dog")]
    marked = mark_prompt("a cat and a dog", concepts, (0,))
    assert marked.text == text
    [subject, _], [whole, _] = words(marked)
    assert subject.lower() == "cat"
    assert whole == trigger
    assert mark_prompt("a cat and a dog", concepts, ()).text == "a cat and a dog"


@pytest.mark.parametrize(
    ("written", "trigger"),
    [
        ("a sks cat and a dog", "sks"),
        ("a SKS  cat and a dog", "sks"),
        ("a sks cat and a dog", "sks cat"),
        ("a cat in szn style and a dog", "cat in szn style"),
        ("a sks cat toy and a dog", "sks cat toy"),
    ],
)
def test_a_trigger_that_is_already_written_is_not_doubled(written, trigger):
    concepts = [concept("cat", trigger), concept("dog", "zwx")]
    whole = trigger if "cat" in trigger else f"{trigger} cat"
    assert mark_prompt(written, concepts, (0,)).text == f"a {whole} and a dog"
    # and where it must not be, it is not
    assert mark_prompt(written, concepts, (1,)).text == "a cat and a zwx dog"


@pytest.mark.parametrize(
    ("written", "trigger", "text"),
    [
        ("a masks cat", "sks", "a masks sks cat"),
        ("a cat toybox", "cat toy", "a cat toy toybox"),
    ],
)
def test_a_word_that_only_looks_like_the_trigger_stays(written, trigger, text):
    assert mark_prompt(written, [concept("cat", trigger)], (0,)).text == text


@pytest.mark.parametrize("subject", [None, ""])
def test_a_concept_without_a_subject_is_refused_with_the_way_out(subject):
    with pytest.raises(
        PromptError, match=r"'nobody' is a concept without a subject.*kind to style"
    ):
        mark_prompt("a cat", [concept(subject, name="nobody")], ())


def test_the_prompt_error_belongs_to_the_stage_prompt():
    with pytest.raises(PromptError) as caught:
        mark_prompt("a cat", [concept("dog")], ())
    assert caught.value.stage == "prompt"


NOUNS = ["cat", "dog", "bird", "book", "fox", "plushie", "red fox"]
JOINTS = [" and a ", ", the ", " on the beach with a ", " -- ", "\n", " über "]
TRIGGERS = [None, "sks", "zwx", "szn style", "plu <s1>"]


@st.composite
def prompts_with_concepts(draw):
    """A prompt of one to eight nouns, each a concept's, with or without a trigger."""
    nouns = draw(st.lists(st.sampled_from(NOUNS), min_size=1, max_size=8))
    prompt = nouns[0]
    for noun in nouns[1:]:
        prompt += draw(st.sampled_from(JOINTS)) + noun
    order = draw(st.permutations(nouns))
    return prompt, [concept(noun, draw(st.sampled_from(TRIGGERS))) for noun in order]


@given(prompts_with_concepts(), st.data())
def test_spans_always_cut_out_the_right_words(case, data):
    prompt, concepts = case
    active = data.draw(st.sets(st.integers(0, len(concepts) - 1)))
    try:
        marked = mark_prompt(prompt, concepts, active)
    except PromptError:
        # "red fox" takes a fox away from "fox" only where both are the same words.
        assert any("fox" in lora.subject for lora in concepts)
        return
    subjects, triggers = words(marked)
    assert subjects == [lora.subject for lora in concepts]
    for index, (lora, trigger) in enumerate(zip(concepts, triggers, strict=True)):
        assert trigger == (lora.trigger if index in active else None)
    spans = sorted(marked.subjects)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@given(prompts_with_concepts())
def test_a_variant_without_triggers_is_the_prompt_as_written(case):
    prompt, concepts = case
    try:
        assert mark_prompt(prompt, concepts, ()).text == prompt
    except PromptError:
        assert any("fox" in lora.subject for lora in concepts)


@given(prompts_with_concepts())
def test_taking_the_triggers_out_again_gives_the_prompt(case):
    prompt, concepts = case
    try:
        marked = mark_prompt(prompt, concepts, range(len(concepts)))
    except PromptError:
        return
    text = marked.text
    for span in sorted((s for s in marked.triggers if s), reverse=True):
        text = text[: span[0]] + text[span[1] + 1 :]
    assert text == prompt
