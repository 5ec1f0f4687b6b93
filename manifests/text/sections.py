"""Which names a mapping may hold, and what an unknown one is taken for.

Two kinds of mapping: closed ones (a job, its sections, the LoRAs of a row), where every unknown
name is a mistake, and open ones (the columns of a manifest, the entries of a LoRA catalog), where
most are the author's own. There a name counts as a mistake only if it is sure to be one, because
the other way round a column would be refused for looking like ours.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import get_args

from pydantic import BaseModel

from clora_core.recipe.near_names import Likeness, Meant, folded, meant_as, num_slips, one_of
from manifests.text.wording import known_names

OWN_PREFIX = "my_"
"""What begins with it is always the author's own."""

OWN_WORDS = frozenset(
    {
        "capsize", "eight", "floras", "kid", "kin", "lords", "lorax", "lores", "loris", "present",
        "reset", "rigger", "sample", "sampled", "samples", "schedule", "scheduled", "schedules",
        "sed", "see", "simpler", "temperate", "with", "wright",
    }
)  # fmt: skip
"""Words that are a slip away from a name of ours, and that people mean as they are written."""

_SHORT_CHARACTERS = 5
_LONG_CHARACTERS = 9
_SIZE = re.compile(r"\s*\d+(\.0)?\s*([x\u00d7*,;/]\s*\d+\s*)?(px)?\s*", re.IGNORECASE)
SIZE_NAMES = frozenset({"size", "resolution"})
"""Names that mean pixels or something else, as their value says."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The names that one mapping may hold.

    Attributes:
        names: Its fields.
        inner: The sections of fields that hold mappings, or lists of them, by field.
        required: Fields that must be given.
        is_open: Other names are their author's own unless one is surely a mistake.
        own_words: Of an open section: names that are their author's own, though other tools have
            them.
        is_apart: Who holds the mapping looks at its names later; here they say what belongs there.
    """

    names: tuple[str, ...]
    inner: Mapping[str, "Section"] = field(default_factory=dict[str, "Section"])
    required: frozenset[str] = frozenset()
    is_open: bool = False
    own_words: frozenset[str] = frozenset()
    is_apart: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What an unknown name is taken for.

    Attributes:
        sentence: What is said of it.
        right: The field to read it as; None if that is not sure enough.
        asked: Fields that the sentence asks about.
        is_respelt: It is the field's own name but for case, separators or the plural.
    """

    sentence: str
    right: str | None = None
    asked: tuple[str, ...] = ()
    is_respelt: bool = False


def section_of(model: type[BaseModel], *, inner: Mapping[str, Section] | None = None) -> Section:
    """Return the section that ``model`` describes.

    Args:
        model: Its fields are the names; fields that hold models are sections of their own. It is
            open unless the model forbids further fields.
        inner: Sections of fields whose type does not say what they hold.
    """
    found = {name: _inner(info.annotation) for name, info in model.model_fields.items()}
    return Section(
        names=tuple(model.model_fields),
        inner={name: held for name, held in found.items() if held is not None} | dict(inner or {}),
        required=frozenset(n for n, info in model.model_fields.items() if info.is_required()),
        is_open=model.model_config.get("extra") != "forbid",
    )


def verdict(name: str, value: object, section: Section, given: Collection[str]) -> Verdict | None:
    """Return what ``name``, which is no field of ``section``, is taken for.

    Args:
        name: As it is given.
        value: Given under it.
        section: Where it stands.
        given: All names that are given there.

    Returns:
        None for a name that is its author's own, which only an open section has.
    """
    likely = meant_as(name, section.names)
    if likely is not None and section.is_open and not _is_sure(name, value, likely, section, given):
        likely = None
    likeness = Likeness.RESEMBLANCE if likely is None else likely.likeness
    if likeness > Likeness.OTHER_TOOL:
        for where, inner in section.inner.items():
            meant = meant_as(name, inner.names, may_guess=False)
            if meant is None or meant.likeness >= likeness:
                continue
            if not section.is_open or _is_sure(name, value, meant, section, ()):
                return Verdict(sentence=_misplaced(name, where, meant, section))
    if likely is None:
        if section.is_open:
            return None
        return Verdict(sentence=f"is not a known setting; {known_names(section.names)}")
    unread = "is not read under this name" if section.is_open else "is not a known setting"
    free = tuple(each for each in likely.names if each not in given)
    if not free:
        text = f"{unread}; {one_of(likely.names)} is, and is given too: take one of them out"
        return Verdict(sentence=text + _way_out(name, section))
    surely = len(free) == 1 and likely.likeness < Likeness.RESEMBLANCE
    return Verdict(
        sentence=f"{unread}; did you mean {one_of(free)}?{_way_out(name, section)}",
        right=free[0] if surely else None,
        asked=free,
        is_respelt=likely.likeness <= Likeness.PLURAL,
    )


def _misplaced(name: str, where: str, meant: Meant, section: Section) -> str:
    names = one_of(meant.names)
    if section.is_open:
        text = f"is not read here; write it in the column {where!r}, as {names}"
    else:
        text = f"is not a known setting here; write it under {where!r}, as {names}"
    return text + _way_out(name, section)


def _way_out(name: str, section: Section) -> str:
    own = re.sub(r"\W+", "_", name)[:40]
    return (
        f" (for one of your own choose another name, such as {OWN_PREFIX + own!r})"
        if (section.is_open)
        else ""
    )


def _is_sure(
    name: str, value: object, meant: Meant, section: Section, given: Collection[str]
) -> bool:
    """Return whether a name of an open section is a mistake rather than its author's own."""
    word = name.lower()
    if word.startswith(OWN_PREFIX):
        return False
    if any(each in section.required and each not in given for each in meant.names):
        return True  # one must be it, and this is the likeliest
    if word in OWN_WORDS or word in section.own_words:
        return False
    if meant.likeness == Likeness.CASE:
        return True
    if any(each in given for each in meant.names):
        return False  # the field itself is there, so this is something else
    if meant.likeness == Likeness.SLIP:
        return any(_is_near(folded(name), folded(each)) for each in meant.names)
    if meant.likeness == Likeness.RESEMBLANCE:
        return False
    return word not in SIZE_NAMES or _is_size(value)


def _is_near(given: str, right: str) -> bool:
    """Return whether ``given`` is a slip of the hand; a short name has fewer that are no words."""
    if len(right) >= _SHORT_CHARACTERS:
        most = 2 if len(right) >= _LONG_CHARACTERS else 1
        return num_slips(given, right, most=most) <= most
    if len(given) == len(right):
        return sorted(given) == sorted(right)  # two are swapped
    longer, shorter = (given, right) if len(given) > len(right) else (right, given)
    left_out = [i for i in range(len(longer)) if longer[:i] + longer[i + 1 :] == shorter]
    if len(longer) == len(right):
        return bool(left_out)
    return any(longer[i] in longer[max(i - 1, 0) : i] for i in left_out)  # one is doubled


def _is_size(value: object) -> bool:
    """Return whether ``value`` is pixels and not, say, the size of a shirt."""
    if isinstance(value, str):
        return _SIZE.fullmatch(value) is not None
    return isinstance(value, int | float | list)


def _inner(annotation: object) -> Section | None:
    """Return the section of a field that holds a model, or a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return section_of(annotation)
    found = (_inner(argument) for argument in get_args(annotation))
    return next((section for section in found if section is not None), None)
