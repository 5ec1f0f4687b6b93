"""The oracle's own texts and positions, against cases worked out by hand."""

from pathlib import Path

import pytest
from oracles.prompts import all_triggers, oracle_variants
from oracles.tiny_loras import TinyLoras
from oracles.tiny_rows import lora_use
from transformers import CLIPTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_sd_dir: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(tiny_sd_dir / "tokenizer")


@pytest.fixture(scope="module")
def concept(tiny_loras: TinyLoras):
    def make(subject: str, trigger: str | None = "sks"):
        return lora_use(tiny_loras["peft_attention"], subject=subject, trigger=trigger)

    return make


def test_the_trigger_goes_before_its_own_subject_only(tokenizer, concept):
    variants = oracle_variants("A cat and a dog", [concept("cat"), concept("dog")], tokenizer)
    assert [variant.text for variant in variants] == [
        "A cat and a dog",
        "A sks cat and a dog",
        "A cat and a sks dog",
    ]
    assert [variant.words for variant in variants] == [
        ((2,), (5,)),
        ((2, 3), (6,)),
        ((2,), (5, 6)),
    ]
    assert [variant.active for variant in variants] == [None, 0, 1]


def test_each_piece_of_a_word_is_a_position(tokenizer, concept):
    variants = oracle_variants(
        "a blackcat and a plushie dog", [concept("blackcat"), concept("plushie dog")], tokenizer
    )
    assert variants[0].words == ((2, 3), (6, 7, 8))
    assert variants[2].words == ((2, 3), (6, 7, 8, 9))


def test_the_nth_concept_of_a_noun_is_its_nth_occurrence(tokenizer, concept):
    concepts = [concept("cat", "sks"), concept("cat", "zwx")]
    variants = oracle_variants("a cat and a cat", concepts, tokenizer)
    assert variants[2].text == "a cat and a zwx cat"
    assert variants[0].words == ((2,), (5,))


def test_a_trigger_with_the_subject_in_it_takes_its_place(tokenizer, concept):
    variants = oracle_variants(
        "a cat and a dog", [concept("cat", "cat in szn style"), concept("dog")], tokenizer
    )
    assert variants[1].text == "a cat in szn style and a dog"
    assert variants[1].words == ((2, 3, 4, 5), (8,))


def test_without_a_trigger_the_text_stays(tokenizer, concept):
    variants = oracle_variants("a cat", [concept("cat", None)], tokenizer)
    assert variants[1].text == "a cat"
    assert variants[1].words == ((2,),)


def test_order_of_concepts_and_case_do_not_matter(tokenizer, concept):
    variants = oracle_variants("Two DOGS, a Cat", [concept("cat"), concept("dog")], tokenizer)
    assert variants[1].text == "Two DOGS, a sks Cat"
    assert all_triggers("Two DOGS, a Cat", [concept("cat"), concept("dog")]) == (
        "Two sks DOGS, a sks Cat"
    )


def test_a_subject_that_is_not_named_is_refused(tokenizer, concept):
    with pytest.raises(ValueError, match="names 'cat' only 1 time"):
        oracle_variants("a cat", [concept("cat"), concept("cat")], tokenizer)


def test_a_subject_behind_the_last_token_is_refused(tokenizer, concept):
    with pytest.raises(ValueError, match="behind the last token"):
        oracle_variants("a dog and " * 25 + "a cat", [concept("cat")], tokenizer)
