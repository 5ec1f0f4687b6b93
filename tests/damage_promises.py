"""Which damage every command names, and with which exit code it ends then."""

from collections.abc import Callable, Iterator, Mapping

from damage_commands import MAKERS, Outcome

__all__ = ["NAMED", "wrong_answer"]

Condition = Callable[[Outcome], bool]


def _present(outcome: Outcome) -> bool:
    """The file is there; one that is missing may never have been."""
    return outcome.case.damage != "missing"


def _of_another_size(outcome: Outcome) -> bool:
    return not outcome.keeps_size


def _no_picture(outcome: Outcome) -> bool:
    """The file cannot be opened as a picture any more; that of another row can."""
    return outcome.case.damage != "another's content"


def _always(_outcome: Outcome) -> bool:
    return True


_RECORDS = {"run record": _present, "earlier run record": _present}
_UNITS = {"unit": _present, "reference unit": _present}
_PICTURES = {"image": _no_picture, "reference image": _no_picture}
_MADE = {"unit": _present, "image": _of_another_size}
_CHECKED = {
    **_UNITS, **_RECORDS,
    **dict.fromkeys(
        ("errors", "centroids", "manifest", "lease", "earlier lease", "edition",
         "earlier edition", "record of a plan"),
        _present,
    ),
    **dict.fromkeys(("plan of images", "plan of references"), _always),
    "latest.json": _always,
    "image": _always,
    "reference image": _always,
}  # fmt: skip

NAMED: Mapping[str, Mapping[str, Condition]] = {
    "plan": _UNITS,
    "status": {**_RECORDS, "unit": _present, "manifest": _always, "image": _of_another_size},
    "verify": _CHECKED,
    "gc": {"unit": _present},
    "show": _PICTURES,
    "render": _PICTURES,
    "export": {**_RECORDS, "unit": _present, "image": _always},
    "table": {**_RECORDS, **_UNITS},
    "report": {**_RECORDS, **_UNITS, "image": _of_another_size},
    "compose": _MADE,
    "retry": _MADE,
    "catalog": {**_MADE, "edition": _present},
    "gc --delete": {"unit": _present},
    "verify --repair": _CHECKED,
}
"""Kinds of files whose damage a command names, and when it does."""

_NAMED_WHEN_CONTINUED = {
    "plan of images": _always,
    "record of a plan": _present,
    "lease": _present,
    "reference unit": _present,
}
"""What ``compose`` and ``catalog`` name as well when they continue a run that was killed."""


def has_to_name(outcome: Outcome) -> bool:
    """Return whether the command promises to name the damaged file."""
    command, kind = outcome.run.command, outcome.case.kind
    conditions = NAMED.get(command, {})
    if outcome.case.world == "killed" and command in ("compose", "catalog"):
        conditions = {**conditions, **_NAMED_WHEN_CONTINUED}
    return kind in conditions and conditions[kind](outcome)


def wrong_answer(outcome: Outcome) -> Iterator[str]:
    """Yield what is wrong with what a command said and with its exit code."""
    if outcome.run.code is None or "Traceback" in outcome.run.said:
        yield "ends with a traceback"
        return
    if has_to_name(outcome) and not outcome.is_named:
        yield f"does not name {outcome.name}"
    codes = _codes(outcome)
    if outcome.run.code not in codes:
        wanted = " or ".join(map(str, sorted(codes)))
        yield f"ends with {outcome.run.code} instead of {wanted}"
    if outcome.run.code == 2 and _is_unit(outcome) and "--repair` " not in outcome.run.said:
        yield "is refused and does not name the way out"


def _codes(outcome: Outcome) -> set[int]:
    """Return the exit codes that are honest, and no alarm about what a command has no use for."""
    command, kind, must_name = outcome.run.command, outcome.case.kind, has_to_name(outcome)
    usual = {outcome.usual.code}
    is_missing = outcome.case.damage == "missing"
    # Without the latest record, what an output was last asked for is another thing.
    is_other_question = outcome.case.world == "killed" and kind == "run record"
    if command in ("plan", *MAKERS):
        if must_name and _is_unit(outcome):
            return {2}
        if command == "retry" and (is_other_question or (kind == "unit" and is_missing)):
            return {0, 1}
        return usual
    if command in ("gc", "gc --delete"):
        return {1} if must_name else usual
    if command in ("show", "render"):
        return {2} if must_name else usual
    if command in ("table", "report", "export"):
        # An image is whole in its unit.
        return {1} if must_name and kind != "image" else usual
    if command == "status":
        if is_other_question and is_missing:
            return {0, 1}
        return {1} if must_name or kind == "unit" else usual
    if command == "verify":
        return {1} if must_name or (is_missing and kind == "edition") else usual
    return usual


def _is_unit(outcome: Outcome) -> bool:
    return outcome.case.kind in ("unit", "reference unit")
