"""Whether each concept of a template finds its own place, and in which order of concepts.

A row's concepts find their nouns in its prompt by themselves (``clora_core.recipe.prompts``): each
takes the first, and those that share a noun take its occurrences in the row's order. So ``{1} and
{0}`` with two cats would give each the other's place, and with a table ``a table lamp beside a
{0}`` would give it the lamp's.
"""

import re
from collections.abc import Sequence

from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.marked import mark_prompt
from clora_core.recipe.row import Lora

_PLACE = re.compile(r"\{(\d+)\}")


def fitting_order(template: str, nouns: Sequence[str]) -> tuple[int, ...] | None:
    """Return the order in which each concept finds its noun in a place of its own, or None.

    The given order if it does, else that of the first places in the template.

    Args:
        template: With a place ``{0}``, ``{1}``, ... for every concept.
        nouns: Of the concepts.
    """
    prompt, starts = _filled(template, nouns)
    as_given = tuple(range(len(nouns)))
    by_place = tuple(sorted(as_given, key=lambda index: min(starts[index])))
    for order in (as_given, by_place):
        concepts = [_concept(nouns[index]) for index in order]
        try:
            found = mark_prompt(prompt, concepts, active=()).subjects
        except PromptError:
            return None
        if all(start in starts[index] for (start, _), index in zip(found, order, strict=True)):
            return order
    return None


def reindexed(template: str, order: Sequence[int]) -> str:
    """Return the template for concepts in this order: ``{1}`` becomes the place where 1 stands."""
    return _PLACE.sub(lambda found: f"{{{order.index(int(found[1]))}}}", template)


def _filled(template: str, nouns: Sequence[str]) -> tuple[str, list[list[int]]]:
    """Return the prompt, and where each concept's places begin in it."""
    text, starts = "", [list[int]() for _ in nouns]
    for number, piece in enumerate(_PLACE.split(template)):
        if number % 2:
            starts[int(piece)].append(len(text))
            text += " ".join(nouns[int(piece)].split())
        else:
            text += piece
    return text, starts


def _concept(noun: str) -> Lora:
    return Lora(name=noun, uri="", digest="", kind="concept", weight=1.0, subject=noun)
