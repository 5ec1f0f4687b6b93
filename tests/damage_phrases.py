"""What a command did about a damaged file, in a few words."""

from damage_commands import MAKERS, Outcome

from pipelines.units.output_files import DAMAGED_FOLDER

__all__ = ["NOT_LOOKED_AT", "phrase"]

NOT_LOOKED_AT = "not looked at"

_ACQUIRING = (*MAKERS, "gc --delete", "verify --repair")
_LEAVING_OUT = ("status", "table", "report", "export")


def phrase(outcome: Outcome) -> str:
    """Return e.g. ``refused (2), named``: what was done, the exit code, and whether it was said."""
    if outcome.run.code is None:
        return "**broken**"
    deed = _written(outcome) or _answered(outcome)
    return f"{deed} ({outcome.run.code})" + (", named" if outcome.is_named else "")


def _is_unit(outcome: Outcome) -> bool:
    return outcome.case.kind in ("unit", "reference unit")


def _is_image(outcome: Outcome) -> bool:
    return outcome.case.kind in ("image", "reference image")


def _written(outcome: Outcome) -> str | None:
    """Return what a command did to the file; None if it left it as it was."""
    name, run, is_missing = outcome.name, outcome.run, outcome.case.damage == "missing"
    before, after = run.before.get(name), run.after.get(name)
    is_written = after is not None and after != before
    if _is_set_aside(outcome):
        is_restored = is_written and after == outcome.case.pristine[name]
        return "set aside and restored" if is_restored else "set aside"
    if is_written and after == outcome.case.pristine[name]:
        return "restored"
    # Rows that are made again may be in units of another name.
    if run.command in MAKERS and outcome.case.kind == "unit" and is_missing and run.code == 0:
        return "made again"
    if is_written:
        return "made again" if _is_unit(outcome) else "written again"
    return None


def _answered(outcome: Outcome) -> str:
    command, code, kind = outcome.run.command, outcome.run.code, outcome.case.kind
    if code == 2 or (command.startswith("gc") and code == 1):
        return "refused"
    if not outcome.is_named:
        return _unnamed(outcome)
    if code != 0 or outcome.usual.code != 0:
        is_left_out = command in _LEAVING_OUT and not _is_image(outcome)
        return "left out" if is_left_out else "seen"
    if "lease" in kind:
        return "watched" if command in _ACQUIRING else "taken for live"
    return "copy used" if kind == "image" else "passed over"


def _unnamed(outcome: Outcome) -> str:
    """Return what was done about a file of which nothing is said."""
    is_missing = outcome.case.damage == "missing"
    if _is_unit(outcome) and is_missing:
        return "as not made" if outcome.was_listed else NOT_LOOKED_AT
    if outcome.run.code not in (0, outcome.usual.code):
        return "missed" if is_missing else "seen"
    is_image = _is_image(outcome)
    if outcome.was_read:
        if is_image:
            return "taken as it is"
        return "not missed" if is_missing else "passed over"
    return "not seen" if is_image and outcome.was_sized and outcome.keeps_size else NOT_LOOKED_AT


def _is_set_aside(outcome: Outcome) -> bool:
    name = outcome.name
    if name.startswith("references/"):
        name = "/".join(name.split("/")[2:])
    return any(
        f"{DAMAGED_FOLDER}/" in kept and kept.endswith(f"/{name}")
        for kept in outcome.run.after.keys() - outcome.run.before.keys()
    )
