"""Whether the sampler could make a row, found before anything is started.

Which LoRAs a method needs, where it can keep them and where a subject stands in a prompt are asked
of the code that samples, so a row that passes is not refused later for any of these.
"""

from collections.abc import Sequence
from functools import lru_cache

from clora_core.recipe.config import PromptSyntax, SamplerConfig
from clora_core.recipe.errors import CompositionError, PromptError
from clora_core.recipe.methods import METHODS, Mix
from clora_core.recipe.prompts.marked import mark_prompts
from clora_core.recipe.reading.syntax import read_prompt
from clora_core.recipe.row import Lora, LoraKind


def composition_findings(
    method: str,
    prompt: str,
    loras: Sequence[Lora],
    *,
    negative_prompt: str = "",
    syntax: PromptSyntax = "plain",
) -> list[tuple[str, str]]:
    """Return (column, sentence) of every reason that such a row cannot be made.

    Args:
        method: A known method.
        prompt: The row's.
        loras: The row's, all defaults applied; their files may be unknown yet.
        negative_prompt: The row's.
        syntax: How its prompts are read.
    """
    findings = [
        (column, str(error))
        for column, text in (("prompt", prompt), ("negative_prompt", negative_prompt))
        if (error := _syntax_problem(text, syntax)) is not None
    ]
    if not any(column == "prompt" for column, _ in findings):
        findings += [("prompt", text) for text in _prompt_problems(prompt, loras, syntax)]
    problems = (
        _method_problem(method, tuple(lora.kind for lora in loras)),
        region_problem(method, loras),
    )
    return findings + [("method", text) for text in problems if text is not None]


def region_problem(method: str, loras: Sequence[Lora]) -> str | None:
    """Return why ``method`` cannot keep the LoRAs in their regions, None if it can."""
    if METHODS[method].takes_regions or not any(lora.region for lora in loras):
        return None
    allowed = ", ".join(repr(name) for name, known in METHODS.items() if known.takes_regions)
    return (
        f"{method!r} has no masks that could keep a LoRA in its region; use one of {allowed}, or "
        "leave the region out"
    )


def _syntax_problem(text: str, syntax: PromptSyntax) -> PromptError | None:
    try:
        read = read_prompt(text, syntax)
    except PromptError as error:
        return error
    if text.strip() and not read.words.strip():
        return PromptError("holds signs and no words; write some, or leave it empty")
    return None


def _prompt_problems(prompt: str, loras: Sequence[Lora], syntax: PromptSyntax) -> list[str]:
    concepts = [lora for lora in loras if lora.kind == "concept"]
    together = _prompt_problem(prompt, concepts, syntax)
    if together is None:
        return []
    # The sampler stops at the first that is missing; a row's author wants all of them.
    alone = [_prompt_problem(prompt, [concept], syntax) for concept in concepts]
    return [text for text in alone if text is not None] or [together]


def _prompt_problem(prompt: str, concepts: Sequence[Lora], syntax: PromptSyntax) -> str | None:
    try:
        mark_prompts(prompt, concepts, (), syntax)
    except PromptError as error:
        return str(error)
    return None


@lru_cache(maxsize=1024)
def _method_problem(method: str, kinds: tuple[LoraKind, ...]) -> str | None:
    """Return why ``method`` cannot make a row with LoRAs of such kinds."""
    if not kinds and METHODS[method].needs_loras:
        without = next(name for name, known in METHODS.items() if not known.needs_loras)
        return f"{method!r} needs a LoRA, the row has none; name one in loras, or use {without!r}"
    try:
        METHODS[method].variants(Mix(kinds, SamplerConfig()))
    except CompositionError as error:
        return f"{error}; add or remove some, or use 'merge', which takes any number"
    return None
