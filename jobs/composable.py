"""Whether the sampler could make a row, asked of the sampler itself before anything is started.

Which LoRAs a method needs and where a subject stands in a prompt are the sampler's rules. Manifests
are checked without knowing them, so they are passed in from here; a row that passes is not refused
later for either.
"""

from collections.abc import Sequence
from functools import lru_cache

from clora_core.config import SamplerConfig
from clora_core.errors import CompositionError, PromptError
from clora_core.methods import METHODS
from clora_core.prompts import mark_prompt
from clora_core.rows import ComposeRow, LoraUse
from manifests.resolved import ResolvedLora

__all__ = ["composition_findings"]

_WITHOUT_LORAS = "base"
_REGION_METHODS = (_WITHOUT_LORAS, *(name for name, value in METHODS.items() if value.masked))
"""Methods that can keep a LoRA in a region, and the one that has no LoRA to keep."""


def composition_findings(
    method: str, prompt: str, loras: Sequence[ResolvedLora]
) -> list[tuple[str, str]]:
    """Return (column, sentence) of every reason that such a row cannot be made.

    Args:
        method: A known method.
        prompt: The row's.
        loras: The row's, all defaults applied.
    """
    findings = [("prompt", text) for text in _prompt_problems(prompt, loras)]
    kinds = tuple(lora.kind == "concept" for lora in loras)
    problem = _method_problem(method, kinds)
    if problem is not None:
        findings.append(("method", problem))
    if method not in _REGION_METHODS and any(lora.region_json for lora in loras):
        allowed = ", ".join(repr(name) for name in _REGION_METHODS)
        text = f"{method!r} has no masks that could keep a LoRA in its region; use one of {allowed}"
        findings.append(("method", f"{text}, or leave the region out"))
    return findings


def _prompt_problems(prompt: str, loras: Sequence[ResolvedLora]) -> list[str]:
    concepts = [_use(lora.name, lora.subject) for lora in loras if lora.kind == "concept"]
    together = _prompt_problem(prompt, concepts)
    if together is None:
        return []
    # The sampler stops at the first that is missing; whoever mends the row wants all of them.
    alone = [_prompt_problem(prompt, [concept]) for concept in concepts]
    return [text for text in alone if text is not None] or [together]


def _prompt_problem(prompt: str, concepts: Sequence[LoraUse]) -> str | None:
    try:
        mark_prompt(prompt, concepts, active=())
    except PromptError as error:
        return str(error)
    return None


@lru_cache(maxsize=1024)
def _method_problem(method: str, are_concepts: tuple[bool, ...]) -> str | None:
    """Return why ``method`` cannot make a row with such LoRAs."""
    if not are_concepts and method != _WITHOUT_LORAS:
        return f"{method!r} needs a LoRA, the row has none; name one in loras, or use 'base'"
    loras = tuple(_use("any", "any" if is_concept else None) for is_concept in are_concepts)
    row = ComposeRow(prompt="any", loras=loras, seed=0, method=method, sampler=SamplerConfig())
    try:
        METHODS[method].variants(row)
    except CompositionError as error:
        return f"{error}; add or remove some, or use 'merge', which takes any number"
    return None


def _use(name: str, subject: str | None) -> LoraUse:
    kind = "style" if subject is None else "concept"
    return LoraUse(name=name, path="", digest="", kind=kind, subject=subject)
