"""The prompt of each variant, and where every concept stands in it.

A variant is the row's prompt with the triggers of some of its concepts put in: trigger and subject
of one concept stay together, everything else keeps its place (arXiv 2403.19776, section 3.1).
Everything is said in character spans of the finished text; ``tokens`` turns them into positions.

Rules for what people write: a subject is found as a whole word, in any case, singular or plural;
concepts that share a noun take its occurrences in the row's order; a trigger that contains its
subject takes the subject's place; a trigger that already stands at its subject is not doubled. A
trigger has its subject's emphasis, and stands in the same chunk.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

from clora_core.recipe.config import PromptSyntax
from clora_core.recipe.errors import PromptError
from clora_core.recipe.reading.syntax import read_prompt
from clora_core.recipe.reading.text import PromptText
from clora_core.recipe.row import Lora

Span = tuple[int, int]
"""Start and end (exclusive) of some characters of a text."""


@dataclass(frozen=True)
class MarkedPrompt:
    """A variant's text and where its concepts stand.

    Attributes:
        read: What the text encoder gets.
        subjects: Span of every concept's subject, in the row's order.
        triggers: Span of every inserted trigger; None where there is none in this variant. A
            trigger that contains its subject covers the subject's span too.
    """

    read: PromptText
    subjects: tuple[Span, ...] = ()
    triggers: tuple[Span | None, ...] = ()

    @property
    def text(self) -> str:
        """The words alone."""
        return self.read.words

    def words(self, concept: int) -> Span:
        """Return the span of a concept's trigger and subject, which stand together."""
        spans = (self.subjects[concept], self.triggers[concept] or self.subjects[concept])
        return min(start for start, _ in spans), max(end for _, end in spans)

    @property
    def together(self) -> tuple[Span, ...]:
        """Spans that no chunk may split: every concept's words."""
        return tuple(map(self.words, range(len(self.subjects))))


def mark_prompt(
    prompt: str,
    concepts: Sequence[Lora],
    active: Collection[int],
    syntax: PromptSyntax = "plain",
) -> MarkedPrompt:
    """Return ``prompt`` with the triggers of the concepts ``active`` put before their subjects.

    Args:
        prompt: The row's prompt.
        concepts: The row's concept LoRAs.
        active: Indices of the concepts whose trigger this variant shows.
        syntax: How prompt and triggers are read.

    Raises:
        PromptError: A concept has no subject, or its subject is not in the prompt; prompt or
            trigger hold what is not read under ``syntax``.
    """
    return mark_prompts(prompt, concepts, [active], syntax)[0]


def mark_prompts(
    prompt: str,
    concepts: Sequence[Lora],
    actives: Sequence[Collection[int]],
    syntax: PromptSyntax = "plain",
) -> list[MarkedPrompt]:
    """Return what ``mark_prompt`` returns for each of ``actives``."""
    read = _read("the prompt", prompt, syntax)
    found = _find_subjects(read, concepts)
    triggers = [_trigger(lora, syntax) for lora in concepts]
    return [_marked(read, concepts, triggers, found, active) for active in actives]


def _marked(
    read: PromptText,
    concepts: Sequence[Lora],
    own_triggers: Sequence[PromptText],
    found: Sequence[Span],
    active: Collection[int],
) -> MarkedPrompt:
    order = sorted(range(len(concepts)), key=lambda index: found[index])
    next_starts = [*(found[index][0] for index in order[1:]), len(read)]
    text, copied_to = read.leading_breaks(), 0
    subjects: list[Span] = [(0, 0)] * len(concepts)
    triggers: list[Span | None] = [None] * len(concepts)
    for index, next_start in zip(order, next_starts, strict=False):
        start, end = found[index]
        trigger = own_triggers[index]
        inner = _word(concepts[index].subject or "").search(trigger.words)
        lead, tail = (
            (trigger[: inner.start()], trigger[inner.end() :]) if inner else (trigger, None)
        )
        before, lead_written = _without_suffix(read[copied_to:start], lead.words.strip())
        length, tail_written = _prefix(read[end:next_start], tail.words.strip() if tail else "")
        noun, copied_to = read[start:end], end + length
        text += before
        at = len(text)
        weight = noun.weight_of_each()[0]
        if not trigger.words or index not in active:
            text += noun
            subjects[index] = (at, len(text))
        elif inner and tail is not None:
            text += _emphasised(lead, lead_written, weight)
            text += trigger[inner.start() : inner.end()].times(weight)
            text += _emphasised(tail, tail_written, weight)
            subjects[index] = (at + inner.start(), at + inner.end())
            triggers[index] = (at, len(text))
        else:
            text += _emphasised(trigger, lead_written, weight) + PromptText(" ").times(weight)
            text += noun
            subjects[index] = (len(text) - len(noun), len(text))
            triggers[index] = (at, at + len(trigger))
    return MarkedPrompt(text + read[copied_to:], tuple(subjects), tuple(triggers))


def _emphasised(part: PromptText, written: PromptText | None, weight: float) -> PromptText:
    """Return a part of a trigger with its author's emphasis, or with its subject's.

    Args:
        part: As the LoRA has it.
        written: The same words where they already stand in the prompt; None if they don't.
        weight: Emphasis of the subject.
    """
    words = part.words.strip()
    if written is None or len(written) != len(words):
        return part.times(weight)
    blanks = part.words.index(words)
    lead, rest = part[:blanks].times(weight), part[blanks + len(words) :].times(weight)
    return lead + PromptText(words, written.weights) + rest


class PlainPrompts:
    """Where subjects and triggers stand in prompts that say nothing but their words.

    For many prompts with the same concepts, where finished texts are not needed.

    Args:
        concepts: Concept LoRAs; each has a subject, and triggers that say nothing but their words.
    """

    def __init__(self, concepts: Sequence[Lora]) -> None:
        self._concepts = concepts
        self.triggers = tuple((lora.trigger or "").strip() for lora in concepts)
        words = [_word(lora.subject or "") for lora in concepts]
        self._searches = tuple(word.search for word in words)
        inner = [word.search(text) for word, text in zip(words, self.triggers, strict=True)]
        self._in_place = tuple(match is not None for match in inner)
        parts = (
            (text,) if match is None else (text[: match.start()], text[match.end() :])
            for text, match in zip(self.triggers, inner, strict=True)
        )
        stripped = (part.strip().lower() for each in parts for part in each)
        self._parts = tuple(dict.fromkeys(part for part in stripped if part))

    def spans(self, words: str) -> Sequence[Span] | None:
        """Return where ``mark_prompt`` finds the subjects; None if one is missing."""
        spans: list[Span] = []
        for search in self._searches:
            match = search(words)
            if match is None:
                return None
            spans.append(match.span())
        done = 0
        for start, end in sorted(spans):
            if start < done:
                break
            done = end
        else:
            return spans  # each has its first occurrence, in whatever order they choose
        try:
            return _find_subjects(PromptText(words), self._concepts)
        except PromptError:
            return None

    def stand_apart(self, words: str, spans: Sequence[Span]) -> bool:
        """Return whether a finished text has no words but the prompt's and the triggers'.

        Words are what stands between spaces. So where this holds no variant has more tokens than
        all of these words one by one, if a space always parts tokens.

        Args:
            words: The prompt.
            spans: Of its subjects.
        """
        for (start, end), in_place in zip(spans, self._in_place, strict=True):
            if start and words[start - 1] != " ":
                return False
            if in_place and words[end : end + 1] not in ("", " "):
                return False  # the trigger takes the subject's place, next to what follows
        text = words.lower()
        for part in self._parts:
            # Of one that is written already its author's letters are replaced by the LoRA's.
            if part in text and (
                not text.isascii() or text.count(part) != f" {text} ".count(f" {part} ")
            ):
                return False
        return True


def concept_words(lora: Lora, syntax: PromptSyntax = "plain") -> str:
    """Return what calls a concept: its trigger and its subject, or a trigger that holds it.

    Raises:
        PromptError: The trigger cannot be read under ``syntax``.
    """
    subject, trigger = lora.subject or "", _trigger(lora, syntax).words
    if not trigger:
        return subject
    return trigger if _word(subject).search(trigger) else f"{trigger} {subject}"


def _trigger(lora: Lora, syntax: PromptSyntax) -> PromptText:
    trigger = _read(f"the trigger of LoRA {lora.name!r}", (lora.trigger or "").strip(), syntax)
    if trigger.breaks:
        raise PromptError(
            f"the trigger of LoRA {lora.name!r} holds BREAK, and its words stand in one chunk; "
            "take it out"
        )
    return trigger


def _read(what: str, text: str, syntax: PromptSyntax) -> PromptText:
    try:
        return read_prompt(text, syntax)
    except PromptError as error:
        raise PromptError(f"{what} {error}") from None


def _find_subjects(read: PromptText, concepts: Sequence[Lora]) -> list[Span]:
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
        spans = [match.span() for match in _word(lora.subject).finditer(read.words)]
        free = [
            span
            for span in spans
            if not any(_overlap(span, taken) for taken in found.values())
            and not any(span[0] < place < span[1] for place in read.breaks)
        ]
        if not free:
            times = f" once more (it occurs {len(spans)} time(s))" if spans else ""
            raise PromptError(
                f"subject {lora.subject!r} of LoRA {lora.name!r} is not in the prompt{times}: "
                f"{read.words!r}; write the noun where the subject should be"
            )
        found[index] = free[0]
    return [found[index] for index in range(len(concepts))]


@lru_cache(maxsize=1024)
def _word(subject: str) -> re.Pattern[str]:
    pieces = r"\s+".join(re.escape(word) for word in subject.split())
    return re.compile(rf"(?<!\w){pieces}(?:s|es|'s)?(?!\w)", re.IGNORECASE)


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _without_suffix(text: PromptText, trigger: str) -> tuple[PromptText, PromptText | None]:
    """Return ``text`` without a trigger that the user wrote at its end, and that trigger."""
    bare = text.words.rstrip()
    if trigger and bare.lower().endswith(trigger.lower()):
        length = len(bare) - len(trigger)
        is_whole = length == 0 or not bare[length - 1].isalnum()
        if is_whole and not any(place > length for place in text.breaks):
            return text[:length], text[length : len(bare)]
    return text, None


def _prefix(text: PromptText, trigger: str) -> tuple[int, PromptText | None]:
    """Return how long a trigger's rest is that the user wrote at the start, and that rest."""
    bare = text.words.lstrip()
    if trigger and bare.lower().startswith(trigger.lower()):
        start = len(text) - len(bare)
        end = start + len(trigger)
        is_whole = end == len(text) or not text.words[end].isalnum()
        if is_whole and not any(place <= end for place in text.breaks):
            return end, text[start:end]
    return 0, None
