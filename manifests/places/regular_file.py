"""Whether a path can be read from start to end: a pipe waits for ever, a device never ends.

Asked before a file is opened, because opening a pipe that nobody writes to already waits.
"""

import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "is a folder; name a file"),
    (stat.S_ISFIFO, "is a pipe and not a regular file; write it to a file first, and name that"),
    (stat.S_ISSOCK, "is a socket and not a regular file; name a file"),
    (stat.S_ISCHR, "is a device or terminal and not a regular file; name a file"),
    (stat.S_ISBLK, "is a disk and not a regular file; name a file"),
)


def irregularity(path: str | Path) -> str | None:
    """Return why ``path`` is no regular file, as the end of a sentence; None if it is one.

    None, too, if nothing is there or it may not be asked: opening it says so better.
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode):
        return None
    kinds = (sentence for is_kind, sentence in _KINDS if is_kind(mode))
    return next(kinds, "is not a regular file; name a file")
