"""Which tokens are a concept's words. A word of several pieces has several, each on its own.

Position 0 is the start token of the first window; further windows follow it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from clora_core.diffusion.text_tokens import ChunkedTokens
from clora_core.recipe.errors import PromptError
from clora_core.recipe.prompts.marked import MarkedPrompt, Span
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
    tokens: ChunkedTokens, marked: MarkedPrompt, concepts: Sequence[Lora]
) -> tuple[ConceptPositions, ...]:
    """Return where every concept's words are among the tokens of ``marked``.

    Raises:
        PromptError: The tokenizer makes no token of a concept's words; the message names it.
    """

    def positions(span: Span | None, lora: Lora) -> tuple[int, ...]:
        if span is None:
            return ()
        found = tokens.at(span)
        if not found:
            raise PromptError(
                f"{marked.text[slice(*span)]!r} of LoRA {lora.name!r} is nothing to the base "
                "model's tokenizer; write it in other characters"
            )
        return found

    return tuple(
        ConceptPositions(positions(subject, lora), positions(trigger, lora))
        for subject, trigger, lora in zip(marked.subjects, marked.triggers, concepts, strict=True)
    )
