"""What each variant of a prompt says and where its words are, found by tokenising prefixes.

Written apart from the product's own: characters first, tokens last. A word's first token comes
after all tokens of the text before it, because the tokenizer never joins two words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clora_core.recipe.row import Lora


@dataclass(frozen=True, kw_only=True)
class OracleVariant:
    """One text and the token positions in it; 0 is the start token.

    Attributes:
        text: The prompt of this variant.
        words: For each concept the positions of its subject; with those of its trigger where
            this variant has put the trigger in.
        active: The concept whose LoRA is active; None in the base variant.
    """

    text: str
    words: tuple[tuple[int, ...], ...]
    active: int | None


def oracle_variants(prompt: str, concepts: Sequence[Lora], tokenizer: Any) -> list[OracleVariant]:
    """Return the base variant and one variant a concept, the concept's trigger put in."""
    actives = [None, *range(len(concepts))]
    return [
        oracle_variant(prompt, concepts, tokenizer, [] if active is None else [active], active)
        for active in actives
    ]


def oracle_variant(
    prompt: str,
    concepts: Sequence[Lora],
    tokenizer: Any,
    which: Sequence[int],
    active: int | None,
) -> OracleVariant:
    """Return one variant with the triggers of the concepts ``which`` put in."""
    text, spans = insert_triggers(prompt, concepts, which)
    words = tuple(
        _positions(text, span, tokenizer, concept.subject or "")
        for span, concept in zip(spans, concepts, strict=True)
    )
    return OracleVariant(text=text, words=words, active=active)


def all_triggers(prompt: str, concepts: Sequence[Lora]) -> str:
    """Return the prompt with every concept's trigger before its subject."""
    return insert_triggers(prompt, concepts, range(len(concepts)))[0]


def insert_triggers(
    prompt: str, concepts: Sequence[Lora], which: Sequence[int]
) -> tuple[str, list[tuple[int, int]]]:
    """Put the triggers of the concepts ``which`` before their subjects.

    A trigger that contains the subject takes its place.

    Returns:
        The text, and for each concept the characters [start, end) of its words in it.
    """
    spans = _subject_spans(prompt, concepts)
    text = ""
    done = 0
    placed: dict[int, tuple[int, int]] = {}
    for index in sorted(range(len(concepts)), key=lambda index: spans[index]):
        start, end = spans[index]
        text += prompt[done:start]
        phrase = prompt[start:end]
        trigger = concepts[index].trigger
        if trigger and index in which:
            contains = _word(concepts[index].subject or "").search(trigger)
            phrase = trigger if contains else f"{trigger} {phrase}"
        placed[index] = (len(text), len(text) + len(phrase))
        text += phrase
        done = end
    return text + prompt[done:], [placed[index] for index in range(len(concepts))]


def _subject_spans(prompt: str, concepts: Sequence[Lora]) -> list[tuple[int, int]]:
    """The n-th concept of one subject stands for the n-th time the prompt names it."""
    spans: list[tuple[int, int]] = []
    seen: dict[str, int] = {}
    for concept in concepts:
        subject = (concept.subject or "").lower()
        found = list(_word(subject).finditer(prompt))
        place = seen.get(subject, 0)
        seen[subject] = place + 1
        if place >= len(found):
            raise ValueError(f"{prompt!r} names {subject!r} only {len(found)} time(s)")
        spans.append(found[place].span())
    return spans


def _word(subject: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(subject)}(?:e?s)?(?!\w)", re.IGNORECASE)


def _positions(text: str, span: tuple[int, int], tokenizer: Any, subject: str) -> tuple[int, ...]:
    first, end = (1 + _num_tokens(text[:edge], tokenizer) for edge in span)
    if end > tokenizer.model_max_length - 1:
        raise ValueError(f"{subject!r} lies behind the last token that fits in {text!r}")
    return tuple(range(first, end))


def _num_tokens(text: str, tokenizer: Any) -> int:
    return len(tokenizer(text, add_special_tokens=False).input_ids)
