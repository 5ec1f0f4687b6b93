"""How long texts are cut, on words that are a token each."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.chunks import chunks_of, embedded_tokens
from clora_core.recipe.prompts.marked import MarkedPrompt, mark_prompt
from clora_core.recipe.reading.embedded import EmbeddedWord
from clora_core.recipe.reading.syntax import read_prompt
from clora_core.recipe.row import Lora


def tokens_of(text):
    return [match.span() for match in re.finditer(r"\w+|,", text)]


def cut(prompt, *, window=12, together=()):
    """The words of each chunk; ``together`` are words that stand for one concept."""
    read = read_prompt(prompt, "weighted")
    spans = tuple(
        (read.words.index(words), read.words.index(words) + len(words)) for words in together
    )
    marked = MarkedPrompt(read, spans, (None,) * len(spans))
    tokens = tokens_of(read.words)
    chunks = chunks_of(tokens, marked, window)
    return [" ".join(read.words[slice(*tokens[i])] for i in chunk) for chunk in chunks]


def test_a_text_that_fits_is_one_chunk():
    assert cut("a b c d e f g h i j") == ["a b c d e f g h i j"]


def test_a_longer_one_goes_on_in_the_next():
    assert cut("a b c d e f g h i j k l") == ["a b c d e f g h i j", "k l"]


def test_a_comma_near_the_end_is_where_it_is_cut():
    assert cut("a b c d e f g, h i j k") == ["a b c d e f g ,", "h i j k"]


def test_a_comma_far_from_the_end_is_not():
    assert cut("a b, c d e f g h i j k") == ["a b , c d e f g h i", "j k"]


def test_break_begins_a_chunk_and_an_empty_one_is_a_chunk():
    assert cut("a b BREAK c") == ["a b", "c"]
    assert cut("BREAK a") == ["", "a"]
    assert cut("a BREAK BREAK b") == ["a", "", "b"]


def test_break_at_the_end_begins_nothing():
    assert cut("a b BREAK") == ["a b"]


def test_nothing_is_one_empty_chunk():
    assert cut("") == [""]


def test_the_words_of_a_concept_stay_together():
    assert cut("a b c d e f g h i j k l", together=["i j k"]) == ["a b c d e f g h", "i j k l"]


def test_a_concept_longer_than_a_chunk_is_refused_by_name():
    with pytest.raises(PromptError, match=r"'a b c d e f g h i j k' is one concept .*shorten"):
        cut("a b c d e f g h i j k", together=["a b c d e f g h i j k"])


def cut_with_embedding(num_vectors, *, trigger):
    """Cut 'a TRIGGER cat' where 'toy' is an embedding."""
    lora = Lora(name="toy", uri="", digest="", kind="concept", subject="cat", trigger=trigger)
    marked = mark_prompt("a cat", [lora], [0])
    tokens, slots = embedded_tokens(tokens_of, marked.read, [EmbeddedWord("toy", num_vectors)])
    return chunks_of(tokens, marked, 12, slots)


def test_an_embedding_fills_a_chunk_beside_its_subject():
    assert cut_with_embedding(9, trigger="toy") == (range(1), range(1, 11))


@pytest.mark.parametrize(
    ("num_vectors", "trigger", "message"),
    [
        (
            10,
            "toy",
            "'toy cat' is one concept, whose embedding 'toy' has 10 vectors, each a token, and has "
            "more tokens in all than the 10 that the text encoder reads at once; use an embedding "
            "of fewer vectors, or fewer words beside it",
        ),
        (
            11,
            "big toy",
            "the embedding 'toy' has 11 vectors, each a token, and the text encoder reads 10 "
            "tokens at once; use an embedding of fewer vectors",
        ),
    ],
)
def test_an_embedding_that_makes_a_concept_too_long_is_named(num_vectors, trigger, message):
    with pytest.raises(PromptError) as refused:
        cut_with_embedding(num_vectors, trigger=trigger)
    assert str(refused.value) == message


def test_the_pieces_of_a_word_stay_together_unless_it_is_longer_than_a_chunk():
    pieces = MarkedPrompt(read_prompt("ab cdefg", "plain"))
    assert chunks_of([(0, 2), (3, 5), (5, 8)], pieces, 4) == (range(1), range(1, 3))
    assert chunks_of([(0, 2), (3, 5), (5, 7), (7, 8)], pieces, 4) == (
        range(1),
        range(1, 3),
        range(3, 4),
    )


@given(
    words=st.lists(st.sampled_from(["a", "bb", "c,", "BREAK"]), max_size=40),
    window=st.integers(4, 14),
    data=st.data(),
)
def test_every_token_is_in_one_chunk_in_order_and_no_chunk_is_too_long(words, window, data):
    text = " ".join(words)
    read = read_prompt(text, "weighted")
    tokens = tokens_of(read.words)
    spans = []
    if len(tokens) > 2:
        first = data.draw(st.integers(0, len(tokens) - 2))
        last = data.draw(st.integers(first, min(first + 1, len(tokens) - 1)))
        span = (tokens[first][0], tokens[last][1])
        if not any(span[0] < place < span[1] for place in read.breaks):
            spans.append(span)
    marked = MarkedPrompt(read, tuple(spans), (None,) * len(spans))
    chunks = chunks_of(tokens, marked, window)
    assert [index for chunk in chunks for index in chunk] == list(range(len(tokens)))
    assert all(len(chunk) <= window - 2 for chunk in chunks)
    for place in read.breaks:
        firsts = [tokens[chunk.start][0] for chunk in chunks if chunk]
        after = [start for start, _ in tokens if start >= place]
        assert not after or after[0] in firsts
    for start, end in spans:
        inside = {i for i, token in enumerate(tokens) if start <= token[0] < end}
        assert sum(bool(inside & set(chunk)) for chunk in chunks) == 1
