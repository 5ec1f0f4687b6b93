"""The captions that Custom Diffusion's merge leaves as they are, where a job names none.

The published code takes 200 captions of LAION images. These are 200 as well: common nouns, alone
and in twos, in common places. A base model with a small vocabulary needs captions within it, so
these keep to words that the embedded world knows.
"""

import itertools

_SUBJECTS = (
    "cat", "dog", "rabbit", "penguin", "bear", "frog", "robot", "flower", "house", "car", "ball",
)  # fmt: skip
_PLACES = (
    "", " on the beach", " in the forest", " in the street", " on the mountain", " in the room",
    " in the snow",
)  # fmt: skip
_NUM_CAPTIONS = 200


def _all() -> tuple[str, ...]:
    alone = [f"a {subject}" for subject in _SUBJECTS]
    together = [f"{first} and {second}" for first, second in itertools.combinations(alone, 2)]
    placed = itertools.product(_PLACES, [*alone, *together])
    return tuple(f"{what}{place}" for place, what in placed)


def _spread(captions: tuple[str, ...]) -> tuple[str, ...]:
    """Return so many of the captions, evenly chosen."""
    places = (number * len(captions) // _NUM_CAPTIONS for number in range(_NUM_CAPTIONS))
    return tuple(captions[place] for place in places)


CAPTIONS = _spread(_all())
