"""What the operating system says of a disk, as sentences that name the place and the way out."""

import errno
from collections.abc import Generator
from contextlib import contextmanager

from pipelines.storage.error import PlaceError, StorageError

_NO_FOLDER = "a part of the path is a file, or a link that leads nowhere; name another output"

_REFUSED = {
    errno.ENOENT: "its file system does not let anything be made there; name another output",
    errno.ENOTDIR: _NO_FOLDER,
    errno.EEXIST: _NO_FOLDER,
    errno.EISDIR: "it is a folder; move it away, or name another output",
    errno.ELOOP: "its links lead in a circle; correct them, or name another output",
    errno.ENAMETOOLONG: "the name is too long for the file system; name a shorter output",
    errno.EACCES: "this user may not; change its permissions, or name another output",
    errno.EPERM: "this user may not; change its permissions, or name another output",
    errno.EROFS: "its file system is read-only; name another output",
}
"""Refusals that the same request meets again, by error number."""

_PASSING = {
    errno.ENOSPC: "the disk is full; make room and run the same command again",
    errno.EDQUOT: "the quota is used up; make room and run the same command again",
}
_LOOK = "check the disk, and run the same command again"


@contextmanager
def disk_sentences(place: str, verb: str) -> Generator[None]:
    """Raise what the disk refuses within the block as a sentence.

    Args:
        place: The file or folder, for the message.
        verb: What was tried, as a participle: ``written`` or ``read``. A file that is missing is
            an answer when it is read, and passes unchanged.

    Raises:
        PlaceError: The same request is refused again.
        StorageError: It may be possible later.
    """
    try:
        yield
    except OSError as error:
        # Arrow raises OSError without a number for a file that is damaged.
        if error.errno is None or (verb == "read" and isinstance(error, FileNotFoundError)):
            raise
        reason = error.strerror or type(error).__name__
        start = f"{place} cannot be {verb} ({reason}): "
        if error.errno in _REFUSED:
            raise PlaceError(start + _REFUSED[error.errno]) from error
        raise StorageError(start + _PASSING.get(error.errno, _LOOK)) from error
