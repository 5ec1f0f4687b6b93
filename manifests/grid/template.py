"""The prompts that a template stands for: places filled in, lists written out.

Values are put into ``{name}`` places: columns of a catalog's items, or what a sweep knows. A sweep
says many prompts in one line. ``{0}``, ``{1}`` are the subjects of its LoRAs in order,
``{subjects}`` is all of them with their articles, ``{background}`` a background; ``__name__`` is
every text of a list and ``{day|night}`` every alternative. All of them are written out when the
manifest is made and never later: a row is one prompt, word for word, or it could not be made again.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from clora_core.recipe.errors import CloraError
from manifests.text.text_rules import MAX_PROMPT_CHARACTERS
from manifests.text.wording import did_you_mean

MAX_TEXTS = 10_000
"""Most prompts that one template may stand for; more is a slip of the pen."""

_PLACE = re.compile(r"\{([^{}]*)\}")
_WORDS = re.compile(r"__([A-Za-z0-9][A-Za-z0-9_\-]*?)__")
_ALTERNATIVES = re.compile(r"\{([^{}]*\|[^{}]*)\}")


class TemplateError(CloraError):
    """A template that cannot be written out; the message says why and the way out."""


def places(template: str) -> list[str]:
    """Return the names of the ``{name}`` places of a template; alternatives stand there too."""
    return _PLACE.findall(template)


def holds_lists(text: str) -> bool:
    """Return whether a text would not stay as it is: it holds a brace or ``__name__``."""
    return "{" in text or "}" in text or _WORDS.search(text) is not None


def filled(template: str, values: Mapping[str, Any]) -> str:
    """Return the template with ``values`` in their places; other places stay as they are.

    A value is cut where a prompt is too long anyway: a template may name it a thousand times.
    """
    return _PLACE.sub(
        lambda found: str(values.get(found[1], found[0]))[: MAX_PROMPT_CHARACTERS + 1], template
    )


def expand_template(
    template: str,
    *,
    subjects: Sequence[str],
    background: str | None = None,
    words: Mapping[str, Sequence[str]] | None = None,
) -> tuple[str, ...]:
    """Return every prompt that ``template`` stands for, each once, in the order of its lists.

    Args:
        template: The text with its placeholders.
        subjects: Nouns of the concept LoRAs, in their order.
        background: What ``{background}`` is; None if there are no backgrounds.
        words: Lists by name, for ``__name__``; their texts may hold lists and alternatives too.

    Raises:
        TemplateError: An unknown placeholder or list, a list within itself, an open brace, or
            more than ``MAX_TEXTS`` prompts.
    """
    texts = _expanded(_with_subjects(template, subjects, background), words or {}, within=())
    prompts = tuple(dict.fromkeys(" ".join(text.split()) for text in texts))
    stray = next((prompt for prompt in prompts if "{" in prompt or "}" in prompt), None)
    if stray is not None:
        raise TemplateError(
            f"{template!r} gives {stray!r}, which holds a brace; write alternatives as {{a|b}} and "
            "no other braces"
        )
    return prompts


def listed_subjects(subjects: Sequence[str]) -> str:
    """Return the subjects as people list them: ``a cat, an owl and a dog``."""
    named = [f"{'an' if subject[:1].lower() in 'aeiou' else 'a'} {subject}" for subject in subjects]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"


def _with_subjects(template: str, subjects: Sequence[str], background: str | None) -> str:
    values = {str(number): subject for number, subject in enumerate(subjects)}
    if subjects:
        values["subjects"] = listed_subjects(subjects)
    if background is not None:
        values["background"] = background

    for name in places(template):
        if name in values or "|" in name:
            continue
        if name == "background":
            raise TemplateError("{background} is used and there are no backgrounds; list some")
        if name.isdigit() or name == "subjects":
            raise TemplateError(
                f"{{{name}}} is used with {len(subjects)} concept LoRA(s); the first is {{0}}"
            )
        known = ("subjects", "background", *(str(number) for number in range(len(subjects))))
        raise TemplateError(f"{{{name}}} is no placeholder; {did_you_mean(name, known)}")
    return filled(template, values)


def _expanded(
    text: str, words: Mapping[str, Sequence[str]], *, within: tuple[str, ...]
) -> list[str]:
    """Return the texts that ``text`` stands for; ``within`` are the lists being written out."""
    match = _WORDS.search(text)
    options: Sequence[str]
    if match is not None:
        name = match.group(1)
        if name not in words:
            raise TemplateError(
                f"there is no list {name!r} in words; {did_you_mean(name, [*words])}"
            )
        if name in within:
            raise TemplateError(f"the list {name!r} holds itself; take __{name}__ out of it")
        options = [
            option
            for entry in words[name]
            for option in _expanded(entry, words, within=(*within, name))
        ]
    else:
        match = _ALTERNATIVES.search(text)
        if match is None:
            return [text]
        options = match.group(1).split("|")
    texts: list[str] = []
    for option in options:
        whole = text[: match.start()] + option + text[match.end() :]
        texts += _expanded(whole, words, within=within)
        if len(texts) > MAX_TEXTS:
            raise TemplateError(f"stands for more than {MAX_TEXTS:,} prompts; shorten its lists")
    return texts
