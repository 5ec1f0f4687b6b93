"""Names that are nearly known ones: how many slips part them, and what is asked."""

from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from clora_core.recipe.near_names import name_hint, num_slips

words = st.text(alphabet="abcdé", max_size=7)


@cache
def distance(one: str, other: str) -> int:
    """Return the optimal string alignment distance, by its definition."""
    if not one or not other:
        return len(one) + len(other)
    least = min(
        distance(one[:-1], other) + 1,
        distance(one, other[:-1]) + 1,
        distance(one[:-1], other[:-1]) + (one[-1] != other[-1]),
    )
    if len(one) > 1 and one[-2:] == other[-2:][::-1] and len(other) > 1:
        least = min(least, distance(one[:-2], other[:-2]) + 1)
    return least


@settings(max_examples=200)
@given(words, words, st.integers(0, 3))
def test_slips_are_counted_up_to_the_most_that_matter(one: str, other: str, most: int):
    assert num_slips(one, other, most=most) == min(distance(one, other), most + 1)


def test_of_many_names_that_are_equally_near_three_are_asked_about():
    known = [f"cat{number}" for number in range(2, 60)]
    assert name_hint("cat1", known) == "did you mean 'cat2' or 'cat3' or 'cat4'?"
    assert name_hint("husky", known) is None
