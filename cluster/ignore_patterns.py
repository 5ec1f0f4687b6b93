"""Patterns of files to leave out, as ``.gitignore`` writes them and Ray reads them.

Ray matches with the pathspec library, which a machine without Ray need not have. What is needed of
it is small: a pattern becomes a regular expression over a path with ``/``, and the last pattern
that matches decides.
"""

import re
from collections.abc import Callable, Iterable

_WILDCARD = re.compile(r"\*\*/|/\*\*$|\*+|\?|\[[!^]?\]?[^\]]*\]")


def ignored_by(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return whether a relative path is left out by ``patterns``, of which the last match counts.

    A pattern with ``/`` before its end starts at the top, any other matches at every depth; one
    that ends in ``/`` means what is in such a folder; ``!`` takes a name back; ``#`` begins a
    remark.
    """
    rules = [rule for pattern in patterns if (rule := _rule(pattern)) is not None]

    def is_ignored(path: str) -> bool:
        answers = [ignores for expression, ignores in rules if expression.fullmatch(path)]
        return bool(answers) and answers[-1]

    return is_ignored


def _rule(pattern: str) -> tuple[re.Pattern[str], bool] | None:
    text = pattern.strip()
    if not text or text.startswith("#"):
        return None
    ignores = not text.startswith("!")
    text = text.removeprefix("!")
    # What is taken back is the name itself, not what is in it.
    inside = "/.*" if text.endswith("/") else "(?:/.*)?" if ignores else ""
    text = text.removesuffix("/")
    at_top = "/" in text
    start = "" if at_top else "(?:.*/)?"
    return re.compile(f"{start}{_expression(text.removeprefix('/'))}{inside}"), ignores


def _expression(glob: str) -> str:
    pieces: list[str] = []
    end = 0
    for match in _WILDCARD.finditer(glob):
        pieces.append(re.escape(glob[end : match.start()]))
        end = match.end()
        pieces.append(_translated(match.group()))
    return "".join(pieces) + re.escape(glob[end:])


def _translated(wild: str) -> str:
    if wild == "**/":
        return "(?:.*/)?"
    if wild == "/**":
        return "/.*"
    if wild.startswith("*"):
        return "[^/]*"
    if wild == "?":
        return "[^/]"
    inner = wild[1:-1].replace("\\", r"\\")
    return f"[^/{inner[1:]}]" if inner[0] in "!^" else f"[{inner}]"
