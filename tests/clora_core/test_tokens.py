"""Token positions, against hand-worked cases and against tokenising prefixes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.prompts import oracle_variants
from transformers import CLIPTokenizer

from clora_core.diffusion.text_tokens import chunked_tokens
from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.marked import mark_prompt
from clora_core.recipe.row import Lora
from clora_core.sampling.tokens import ConceptPositions, concept_positions


def concept(subject, trigger=None):
    name = f"{subject}-lora"
    return Lora(name=name, uri="", digest="", kind="concept", subject=subject, trigger=trigger)


@pytest.fixture(scope="module")
def tokenizer(tiny_sd_dir):
    return CLIPTokenizer.from_pretrained(tiny_sd_dir / "tokenizer")


def positions(tokenizer, prompt, concepts, active):
    marked = mark_prompt(prompt, concepts, active)
    return concept_positions(chunked_tokens(tokenizer, marked, 77), marked, concepts)


@pytest.mark.parametrize(
    ("active", "cat", "dog"),
    [((), (2,), (5,)), ((0,), (2, 3), (6,)), ((1,), (2,), (5, 6)), ((0, 1), (2, 3), (6, 7))],
)
def test_positions_count_from_the_start_token(tokenizer, active, cat, dog):
    concepts = [concept("cat", "sks"), concept("dog", "zwx")]
    found = positions(tokenizer, "A cat and a dog", concepts, active)
    assert [one.own for one in found] == [cat, dog]


def test_subject_and_trigger_are_told_apart(tokenizer):
    [found] = positions(tokenizer, "a cat", [concept("cat", "sks")], (0,))
    assert found == ConceptPositions(subject=(3,), trigger=(2,))


def test_each_piece_of_a_word_is_a_position(tokenizer):
    concepts = [concept("blackcat", "szn style"), concept("plushie dog", "brownshie")]
    found = positions(tokenizer, "a blackcat and a plushie dog", concepts, (0, 1))
    assert found[0] == ConceptPositions(subject=(4, 5), trigger=(2, 3))
    assert found[1] == ConceptPositions(subject=(10, 11, 12), trigger=(8, 9))


def test_a_trigger_around_the_subject_counts_each_position_once(tokenizer):
    [found, dog] = positions(
        tokenizer, "a cat and a dog", [concept("cat", "cat in szn style"), concept("dog")], (0,)
    )
    assert found == ConceptPositions(subject=(2,), trigger=(2, 3, 4, 5))
    assert found.own == (2, 3, 4, 5)
    assert dog.own == (8,)


@pytest.mark.parametrize("prompt", ["a   cat", "a\n\tcat", "  a cat", "é cat", "e\u0301 cat"])
def test_blanks_and_accents_before_a_word_do_not_shift_it(tokenizer, prompt):
    [found] = positions(tokenizer, prompt, [concept("cat")], ())
    ids = tokenizer(prompt).input_ids
    assert [tokenizer.convert_ids_to_tokens(ids[at]) for at in found.subject] == ["cat</w>"]


def test_a_plural_is_where_its_pieces_are(tokenizer):
    [found] = positions(tokenizer, "two DOGS", [concept("dog")], ())
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("two DOGS").input_ids)
    assert "".join(pieces[at] for at in found.subject) == "dogs</w>"


@pytest.mark.parametrize("num_concepts", range(1, 9))
def test_one_to_eight_concepts_all_have_their_own_positions(tokenizer, num_concepts):
    nouns = ["cat", "dog", "bird", "book", "fox", "man", "cat", "dog"][:num_concepts]
    prompt = " and a ".join(["a " + nouns[0], *nouns[1:]])
    concepts = [concept(noun, "sks") for noun in nouns]
    for active in range(num_concepts):
        found = positions(tokenizer, prompt, concepts, (active,))
        expected = oracle_variants(prompt, concepts, tokenizer)[active + 1].words
        assert tuple(one.own for one in found) == expected
        taken = [at for one in found for at in one.own]
        assert len(set(taken)) == len(taken)


def test_the_last_word_that_fits_is_in_the_first_chunk_and_the_next_in_the_second(tokenizer):
    concepts = [concept("cat")]
    [found] = positions(tokenizer, "a " * 74 + "cat", concepts, ())
    assert found.subject == (75,)
    [found] = positions(tokenizer, "a " * 75 + "cat", concepts, ())
    assert found.subject == (77 + 1,)


def test_a_trigger_pushes_a_subject_into_the_second_chunk_in_that_variant_only(tokenizer):
    concepts = [concept("cat", "sks"), concept("dog")]
    prompt = "a cat " + "a " * (77 - 5) + "dog"
    assert positions(tokenizer, prompt, concepts, ())[1].subject == (75,)
    assert positions(tokenizer, prompt, concepts, (0,))[1].subject == (78,)


def test_a_word_of_several_pieces_stays_in_one_chunk(tokenizer):
    [found] = positions(tokenizer, "a " * 74 + "plushie", [concept("plushie")], ())
    assert found.subject == (78, 79)


def test_trigger_and_subject_stay_in_one_chunk(tokenizer):
    [found] = positions(tokenizer, "a " * 73 + "cat", [concept("cat", "szn photo style")], (0,))
    assert found == ConceptPositions(subject=(81,), trigger=(78, 79, 80))


def test_a_trigger_longer_than_a_chunk_is_refused_by_name(tokenizer):
    with pytest.raises(PromptError, match=r"more tokens than the 75 .*; shorten the trigger"):
        positions(tokenizer, "a cat", [concept("cat", "sks " * 80)], (0,))


@settings(max_examples=40)
@given(data=st.data())
def test_positions_are_those_of_tokenised_prefixes(tokenizer, data):
    nouns = data.draw(
        st.lists(
            st.sampled_from(["cat", "dog", "blackcat", "plushie", "red fox", "book"]),
            min_size=1,
            max_size=8,
        )
    )
    triggers = st.sampled_from([None, "sks", "zwx", "szn style", "photo of"])
    joints = st.sampled_from([" and a ", ", the ", " on the beach: ", " 2 "])
    prompt = "".join(data.draw(joints) + noun for noun in nouns)
    concepts = [concept(noun, data.draw(triggers)) for noun in data.draw(st.permutations(nouns))]
    variants = oracle_variants(prompt, concepts, tokenizer)
    for variant in variants:
        active = () if variant.active is None else (variant.active,)
        marked = mark_prompt(prompt, concepts, active)
        assert marked.text == variant.text
        found = concept_positions(chunked_tokens(tokenizer, marked, 77), marked, concepts)
        assert tuple(one.own for one in found) == variant.words
