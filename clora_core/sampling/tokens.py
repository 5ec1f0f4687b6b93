"""From character spans to token positions, by the tokenizer and never by hand.

Position 0 is the start token. A word of several pieces has several positions, and each counts on
its own. Works with any tokenizer that reports offsets.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts import MarkedPrompt, Span
from clora_core.recipe.row import Lora


@dataclass(frozen=True)
class ConceptPositions:
    """Token positions of one concept in one variant; ``trigger`` is empty where none was put in."""

    subject: tuple[int, ...]
    trigger: tuple[int, ...]

    @property
    def own(self) -> tuple[int, ...]:
        """Trigger and subject together, each position once."""
        return tuple(sorted({*self.trigger, *self.subject}))


def concept_positions(
    tokenizer: Any, marked: MarkedPrompt, concepts: Sequence[Lora]
) -> tuple[ConceptPositions, ...]:
    """Return where every concept's words are among the tokens of ``marked.text``.

    Raises:
        PromptError: The text is longer than the text encoder reads and a concept is cut off; the
            message names it.
    """
    limit = tokenizer.model_max_length
    encoded = tokenizer(marked.text, return_offsets_mapping=True, truncation=False)
    offsets: list[Span] = [tuple(pair) for pair in encoded["offset_mapping"]]

    def positions(span: Span | None, lora: Lora) -> tuple[int, ...]:
        if span is None:
            return ()
        found = tuple(
            index for index, (start, end) in enumerate(offsets) if start < span[1] and span[0] < end
        )
        # The last position that is read holds the end token.
        if not found or found[-1] >= limit - 1:
            raise PromptError(
                f"{marked.text[slice(*span)]!r} of LoRA {lora.name!r} is beyond the {limit} tokens "
                f"that the text encoder reads (the prompt has {len(offsets)}); shorten the prompt "
                f"or move the subject forward"
            )
        return found

    return tuple(
        ConceptPositions(positions(subject, lora), positions(trigger, lora))
        for subject, trigger, lora in zip(marked.subjects, marked.triggers, concepts, strict=True)
    )
