"""Prompt files of other tools: one prompt a line, with options and LoRA tags in it.

Two habits are read, alone or together. Kohya's scripts write options behind the prompt,
``a cat --n blurry --w 512 --h 512 --d 7 --l 7.5 --s 30``; A1111 and its kin write LoRAs into it,
``a cat <lora:my_cat:0.8>``. Both become fields here, so that what reaches a manifest is plain.
What neither a row nor the sampler can say is refused by name and never dropped silently.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from clora_core.recipe.errors import CloraError
from manifests.text.whole_numbers import seed_number

_TAG = re.compile(r"<lora:([^:<>]+)(?::([^<>]*))?>")
_OPTION = re.compile(r"\s--(\w+)(?=\s|$)")


class PromptLineError(CloraError):
    """A line that cannot be read as it is meant; the message says why and the way out."""


def _seed(text: str) -> int:
    try:
        return seed_number(text)
    except ValueError as error:
        raise PromptLineError(f"--d {error}, got {text!r}") from None


_OPTIONS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "n": ("negative_prompt", str),
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", _seed),
    "l": ("guidance_scale", float),
    "s": ("num_steps", int),
}


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """One line of a prompt file.

    Attributes:
        prompt: What is left when options and tags are taken out.
        loras: Name and weight of each tag, in order; a tag without a weight has None.
        negative_prompt: Of ``--n``, or None.
        width: Of ``--w``, in pixels, or None.
        height: Of ``--h``, in pixels, or None.
        seed: Of ``--d``, or None.
        sampler: Settings of ``--l`` (``guidance_scale``) and ``--s`` (``num_steps``).
    """

    prompt: str
    loras: tuple[tuple[str, float | None], ...] = ()
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    sampler: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_prompt_lines(text: str) -> Iterable[tuple[int, PromptLine | PromptLineError]]:
    """Yield (1-based line, what it says or why it cannot be read); not blank and ``#`` lines."""
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                yield number, parse_prompt_line(line)
            except PromptLineError as error:
                yield number, error


def parse_prompt_line(line: str) -> PromptLine:
    """Return what one line says.

    Raises:
        PromptLineError: An option or tag that is unknown, twice there or not a number.
    """
    first, *rest = _OPTION.split(f" {line.strip()}")
    prompt, loras = _without_tags(first)
    values: dict[str, Any] = {}
    for name, text in zip(rest[::2], rest[1::2], strict=True):
        if name not in _OPTIONS:
            known = ", ".join(f"--{option}" for option in _OPTIONS)
            raise PromptLineError(f"--{name} is not an option that a row can say; known: {known}")
        column, convert = _OPTIONS[name]
        if column in values:
            raise PromptLineError(f"--{name} is given twice; leave one")
        try:
            values[column] = convert(text.strip())
        except ValueError:
            raise PromptLineError(f"--{name} should be a number, got {text.strip()!r}") from None
    sampler = {name: values.pop(name) for name in ("guidance_scale", "num_steps") if name in values}
    return PromptLine(prompt=prompt, loras=loras, sampler=sampler, **values)


def _without_tags(text: str) -> tuple[str, tuple[tuple[str, float | None], ...]]:
    loras: list[tuple[str, float | None]] = []
    for name, weight in _TAG.findall(text):
        try:
            loras.append((name.strip(), float(weight) if weight else None))
        except ValueError:
            raise PromptLineError(
                f"<lora:{name}:{weight}> should have one number as its weight, as in "
                f"<lora:{name}:0.8>"
            ) from None
    prompt = " ".join(_TAG.sub(" ", text).split())
    prompt = re.sub(r"\s+,", ",", prompt).strip(" ,")
    if not prompt:
        raise PromptLineError("holds no prompt beside its options and tags")
    return prompt, tuple(loras)
