"""Globs as regular expressions that end: a glob may come from a stranger's job.

``*``, ``?`` and ``[a-z]`` stay within a folder, ``**`` crosses folders. The usual translation tries
every way to share a name among its stars, which for ten of them takes longer than anyone lives. But
all stars of a name except the last may take as little as they can: what a later one needs, it can
take from there.
"""

import re

MAX_CROSSINGS = 2

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?[^\]/]+\]")


def glob_pattern(glob: str) -> re.Pattern[str]:
    """Return the pattern that matches, as a whole, the paths that ``glob`` stands for.

    Raises:
        ValueError: ``**`` is there too often; the message is the end of a sentence.
    """
    if glob.count("**") > MAX_CROSSINGS:
        raise ValueError(f"holds ** more than {MAX_CROSSINGS} times; name the folders")
    parts = _parts(glob)
    written: list[str] = []
    is_open = False
    for index, piece in enumerate(parts):
        if piece in ("*", "**", "**/") and is_open:
            written.append(")")
            is_open = False
        if piece == "*":
            is_open = _has_star_in_name(parts[index + 1 :])
            written.append("(?>[^/]*?" if is_open else "[^/]*")
        else:
            written.append(_translated(piece))
    return re.compile("".join(written), re.DOTALL)


def _parts(glob: str) -> list[str]:
    """Return the glob's wildcards and the texts between them."""
    parts: list[str] = []
    end = 0
    for match in _TOKEN.finditer(glob):
        parts += [glob[end : match.start()], match.group()]
        end = match.end()
    return [*parts, glob[end:]]


def _has_star_in_name(parts: list[str]) -> bool:
    """Return whether another star comes before the name ends."""
    for piece in parts:
        if piece == "*":
            return True
        if "/" in piece or piece == "**":
            return False
    return False


def _translated(piece: str) -> str:
    if piece == "**/":
        return "(?:[^/]+/)*"
    if piece == "**":
        return ".*"
    if piece == "?":
        return "[^/]"
    if _TOKEN.fullmatch(piece):
        return _characters(piece[1:-1])
    return re.escape(piece)


def _characters(inner: str) -> str:
    """Return the class of what stands between brackets; a range that runs backwards holds none."""
    is_negated = len(inner) > 1 and inner.startswith("!")
    left = inner[1:] if is_negated else inner
    members: list[str] = []
    while left:
        if len(left) > 2 and left[1] == "-":
            first, last, left = left[0], left[2], left[3:]
            members += [f"{re.escape(first)}-{re.escape(last)}"] if first <= last else []
        else:
            members.append(re.escape(left[0]))
            left = left[1:]
    if is_negated:
        return f"[^{''.join(members)}/]"
    return f"(?!/)[{''.join(members)}]" if members else "(?!)"
