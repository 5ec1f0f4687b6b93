"""A mapping under the names that were meant, and a sentence for each that is not one of ours.

A wrong name is one problem with the right name in it. Its value is then checked where it belongs,
and nothing is said twice: neither that the right name is missing, nor what another tool's value is
as a value of ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from manifests.text.sections import Section, verdict
from manifests.text.wording import MAX_FINDINGS, WHOLE, Findings, sentences

Model = TypeVar("Model", bound=BaseModel)
Path = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NamedValues:
    """What a mapping gives, by the names that were meant.

    Attributes:
        values: With the author's own, where they are legal; other unknown names are left out.
        findings: (field, sentence) of every name that is wrong.
        settled: Fields, as paths, that the findings speak of already.
        doubtful: Mappings, as paths, that may lack what the findings ask about.
    """

    values: dict[str, Any]
    findings: Findings
    settled: frozenset[Path] = frozenset()
    doubtful: frozenset[Path] = frozenset()

    def speak_of(self, path: Sequence[str | int]) -> bool:
        """Return whether a mistake at ``path`` follows from a name that is among the findings."""
        where = tuple(map(str, path))
        return where in self.doubtful or any(where[: len(each)] == each for each in self.settled)


def checked(
    model: type[Model], given: Mapping[str, Any], section: Section
) -> tuple[Model | None, Findings]:
    """Return the model that ``given`` describes, and everything that is wrong with it.

    Args:
        model: What it should be.
        given: By name; null counts as it does in the model.
        section: The names that it may hold.

    Returns:
        A model beside findings is what ``given`` would be under the names that were meant.
    """
    named = named_values(given, section)
    try:
        return model.model_validate(named.values), named.findings
    except ValidationError as error:
        return None, [*named.findings, *sentences(error, unless=named.speak_of)]


def named_values(given: Mapping[str, Any], section: Section) -> NamedValues:
    """Return the values of ``given`` under the names that ``section`` has for them."""
    values = {name: value for name, value in given.items() if name in section.names}
    named = NamedValues(values=values, findings=[])
    settled: set[Path] = set()
    doubtful: set[Path] = set()
    unknown = [name for name in given if name not in section.names]
    for number, name in enumerate(unknown):
        if len(named.findings) >= MAX_FINDINGS:
            text = f"and {len(unknown) - number:,} more names that may be wrong"
            named.findings.append((WHOLE, text))
            doubtful.add(())
            break
        found = verdict(name, given[name], section, values)
        if found is None:
            values[name] = given[name]
            continue
        named.findings.append((name, found.sentence))
        if found.right is not None:
            values[found.right] = given[name]
        if not found.is_respelt:
            settled |= {(each,) for each in found.asked}
        if found.right is None:
            doubtful.add(())
    for name, inner in section.inner.items():
        if name in values and not inner.is_apart:
            values[name] = _inside(values[name], inner, (name,), named.findings, settled, doubtful)
    return NamedValues(
        values=values,
        findings=named.findings,
        settled=frozenset(settled),
        doubtful=frozenset(doubtful),
    )


def _inside(
    value: object,
    section: Section,
    path: Path,
    findings: Findings,
    settled: set[Path],
    doubtful: set[Path],
) -> object:
    """Return a mapping, or a list of them, under the names that were meant; else ``value``."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [
            _inside(item, section, (*path, str(number)), findings, settled, doubtful)
            for number, item in enumerate(items)
        ]
    if not isinstance(value, Mapping):
        return value
    given = {str(name): item for name, item in cast("Mapping[object, Any]", value).items()}
    named = named_values(given, section)
    findings += [(".".join((*path, name)), text) for name, text in named.findings]
    settled |= {(*path, *each) for each in named.settled}
    doubtful |= {(*path, *each) for each in named.doubtful}
    return named.values
