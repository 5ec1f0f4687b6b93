"""The first phase of a gated row: some steps of the base model that make its masks.

Rows with an equal first phase share it inside one batch, so a plan puts them side by side and an
estimate counts it once. The sampler compares token positions; here text and character spans stand
for them, because rows are planned on machines without a tokenizer.
"""

from functools import lru_cache
from typing import NamedTuple

from clora_core.recipe.config import PromptSyntax, SamplerConfig
from clora_core.recipe.errors import PromptError
from clora_core.recipe.methods import METHODS
from clora_core.recipe.prompts.marked import MarkedPrompt, Span, mark_prompt
from clora_core.recipe.reading.text import PromptText
from clora_core.recipe.row import Lora, Row


class FirstPhase(NamedTuple):
    """All that the first phase depends on, in rows of one base model, size and settings.

    Attributes:
        prompt: The prompt without triggers.
        subjects: Span of every concept's subject in it, in the row's order.
        negative_prompt: The row's.
        seed: The row's.
    """

    prompt: PromptText
    subjects: tuple[Span, ...]
    negative_prompt: str
    seed: int


def has_first_phase(method: str, config: SamplerConfig) -> bool:
    """Return whether rows of ``method`` with these settings have a first phase."""
    make_gate = METHODS[method].make_gate
    return make_gate is not None and make_gate(config).base_steps > 0


def first_phase(row: Row) -> FirstPhase | None:
    """Return the first phase of ``row``.

    None where there is none: the method has none, the regions are the masks already, or a subject
    is missing from the prompt and the row will fail.
    """
    if not has_first_phase(row.method, row.sampler) or row.is_placed:
        return None
    marked = _marked(row.prompt, row.concepts, row.sampler.prompt_syntax)
    if marked is None:
        return None
    return FirstPhase(marked.read, marked.subjects, row.negative_prompt, row.seed)


@lru_cache(maxsize=1024)
def _marked(prompt: str, concepts: tuple[Lora, ...], syntax: PromptSyntax) -> MarkedPrompt | None:
    try:
        return mark_prompt(prompt, concepts, active=(), syntax=syntax)
    except PromptError:
        return None
