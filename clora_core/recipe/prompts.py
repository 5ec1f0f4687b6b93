"""The prompt of each variant, and where every concept stands in it.

A variant is the row's prompt with the triggers of some of its concepts put in: trigger and subject
of one concept stay together, everything else keeps its place (arXiv 2403.19776, section 3.1).
Everything is told in character spans of the finished text; ``tokens`` turns them into positions.

Rules for what people write: a subject is found as a whole word, in any case, singular or plural;
concepts that share a noun take its occurrences in the row's order; a trigger that contains its
subject takes the subject's place; a trigger that already stands at its subject is not doubled.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from clora_core.recipe.errors import PromptError
from clora_core.recipe.row import Lora

Span = tuple[int, int]
"""Start and end (exclusive) of some characters of a text."""


@dataclass(frozen=True)
class MarkedPrompt:
    """A variant's text and where its concepts stand.

    Attributes:
        text: What the tokenizer gets.
        subjects: Span of every concept's subject, in the row's order.
        triggers: Span of every inserted trigger; None where there is none in this variant. A
            trigger that contains its subject covers the subject's span too.
    """

    text: str
    subjects: tuple[Span, ...]
    triggers: tuple[Span | None, ...]

    def words(self, concept: int) -> Span:
        """Return the span of a concept's trigger and subject, which stand together."""
        spans = (self.subjects[concept], self.triggers[concept] or self.subjects[concept])
        return min(start for start, _ in spans), max(end for _, end in spans)


def mark_prompt(prompt: str, concepts: Sequence[Lora], active: Collection[int]) -> MarkedPrompt:
    """Return ``prompt`` with the triggers of the concepts ``active`` put before their subjects.

    Args:
        prompt: The row's prompt.
        concepts: The row's concept LoRAs.
        active: Indices of the concepts whose trigger this variant shows.

    Raises:
        PromptError: A concept has no subject, or its subject is not in the prompt.
    """
    found = _find_subjects(prompt, concepts)
    order = sorted(range(len(concepts)), key=lambda index: found[index])
    text, copied_to, tail = "", 0, ""
    subjects: list[Span] = [(0, 0)] * len(concepts)
    triggers: list[Span | None] = [None] * len(concepts)
    for index in order:
        start, end = found[index]
        trigger = (concepts[index].trigger or "").strip()
        inner = _word(concepts[index].subject or "").search(trigger)
        lead = trigger[: inner.start()].strip() if inner else trigger
        text += _without_suffix(_without_prefix(prompt[copied_to:start], tail), lead)
        noun, copied_to = prompt[start:end], end
        tail = trigger[inner.end() :].strip() if inner else ""
        at = len(text)
        if not trigger or index not in active:
            text += noun
            subjects[index] = (at, len(text))
        elif inner:
            text += trigger
            subjects[index] = (at + inner.start(), at + inner.end())
            triggers[index] = (at, len(text))
        else:
            text += f"{trigger} {noun}"
            subjects[index] = (len(text) - len(noun), len(text))
            triggers[index] = (at, at + len(trigger))
    rest = _without_prefix(prompt[copied_to:], tail)
    return MarkedPrompt(text + rest, tuple(subjects), tuple(triggers))


def _find_subjects(prompt: str, concepts: Sequence[Lora]) -> list[Span]:
    """Give every concept its own occurrence of its subject; longer subjects choose first."""
    found: dict[int, Span] = {}
    by_length = sorted(range(len(concepts)), key=lambda i: -len(concepts[i].subject or ""))
    for index in by_length:
        lora = concepts[index]
        if not lora.subject:
            raise PromptError(
                f"LoRA {lora.name!r} is a concept without a subject; name in its catalog entry or "
                f"in the row the noun of the prompt that it stands for, or set its kind to style"
            )
        spans = [match.span() for match in _word(lora.subject).finditer(prompt)]
        free = [
            span for span in spans if not any(_overlap(span, taken) for taken in found.values())
        ]
        if not free:
            times = f" once more (it occurs {len(spans)} time(s))" if spans else ""
            raise PromptError(
                f"subject {lora.subject!r} of LoRA {lora.name!r} is not in the prompt{times}: "
                f"{prompt!r}; write the noun where the subject should be"
            )
        found[index] = free[0]
    return [found[index] for index in range(len(concepts))]


@lru_cache(maxsize=1024)
def _word(subject: str) -> re.Pattern[str]:
    pieces = r"\s+".join(re.escape(word) for word in subject.split())
    return re.compile(rf"(?<!\w){pieces}(?:s|es|'s)?(?!\w)", re.IGNORECASE)


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _without_suffix(text: str, trigger: str) -> str:
    """Drop a trigger that the user wrote directly before the subject."""
    bare = text.rstrip()
    if trigger and bare.lower().endswith(trigger.lower()):
        before = bare[: len(bare) - len(trigger)]
        if not before or not before[-1].isalnum():
            return before
    return text


def _without_prefix(text: str, trigger: str) -> str:
    """Drop the rest of a trigger that the user wrote directly behind the subject."""
    bare = text.lstrip()
    if trigger and bare.lower().startswith(trigger.lower()):
        behind = bare[len(trigger) :]
        if not behind or not behind[0].isalnum():
            return behind
    return text
