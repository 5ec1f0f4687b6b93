"""What is said about a scene, and which word stands for which subject.

The order of subjects in a caption says nothing about left and right, as in ordinary captions.
A trigger stands right before its noun, the same form that the sampler writes. Words the model
does not know and triggers nobody trained are strewn in, so that the base learns to ignore them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from emoji_world.scenes import Scene, Subject

PLACE_PHRASES = {
    "beach": "on the beach",
    "forest": "in the forest",
    "street": "on the street",
    "mountain": "on the mountain",
    "room": "in the room",
    "snow": "in the snow",
}

TRIGGERS = tuple(f"<l{number}>" for number in range(1, 25))
"""Reserved for concept LoRAs; the base has learnt to ignore them."""

OPENINGS = ("", "", "", "", "", "a picture of ", "a photo of ", "a drawing of ")
ADJECTIVES = ("small", "big", "cute")
JOINS = (" and ", " and ", " and ", " next to ", " with ")

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {
            word
            for phrase in (*PLACE_PHRASES.values(), *OPENINGS, *JOINS, "a", *ADJECTIVES)
            for word in phrase.split()
        }
    )
)

Random = np.random.Generator


@dataclass(frozen=True, kw_only=True)
class Caption:
    """A caption as words.

    Attributes:
        words: In order; joined by spaces they are the prompt.
        subjects: For each word the subject it stands for, counted from 1 in the order of the
            scene; 0 for words that stand for none. Noun and trigger stand for their subject.
    """

    words: tuple[str, ...]
    subjects: tuple[int, ...]


def listed(phrases: Sequence[str]) -> str:
    """Return "a cat", "a cat and a dog", "a cat, a dog and a car"."""
    return " and ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def caption_of(
    scene: Scene,
    random: Random,
    *,
    strange_triggers: float = 0.0,
    strange_words: float = 0.0,
    place_named: float = 0.85,
) -> Caption:
    """Return a caption of a scene.

    Args:
        scene: What is to be described.
        random: Source of the wording.
        strange_triggers: Chance that a subject without trigger gets a reserved one.
        strange_words: Chance that a subject gets an unknown word.
        place_named: Chance that the place is named.
    """
    words: list[str] = []
    subjects: list[int] = []

    def say(phrase: str, subject: int = 0) -> None:
        for word in phrase.split():
            words.append(word)
            subjects.append(subject)

    say(str(random.choice(OPENINGS)))
    order = random.permutation(len(scene.subjects))
    join = str(random.choice(JOINS))
    for position, index in enumerate(order):
        if position:
            say(join if position == len(order) - 1 else ",")
        _name(scene.subjects[index], int(index) + 1, say, random, strange_triggers, strange_words)
    if random.random() < place_named:
        say(PLACE_PHRASES[scene.place])
    return Caption(words=tuple(words), subjects=tuple(subjects))


def _name(
    subject: Subject,
    number: int,
    say: Callable[..., None],
    random: Random,
    triggers: float,
    strange: float,
) -> None:
    say("a")
    if random.random() < strange:
        letters = random.integers(ord("a"), ord("z") + 1, random.integers(3, 7))
        known = random.random() < 0.4
        say(str(random.choice(ADJECTIVES)) if known else "".join(map(chr, letters)))
    if subject.trigger is not None:
        say(subject.trigger, number)
    elif random.random() < triggers:
        say(str(random.choice(TRIGGERS)), number)
    say(subject.noun, number)
