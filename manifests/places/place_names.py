"""How places are named: a local path, or a URI of a store (``s3://bucket/key?region=...``).

Pure arithmetic on names; nothing is asked. The options of a store stand at the end of its URIs, so
what is put to a name goes before them.
"""

import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]+://")
_ESCAPED = {"%": "%25", "?": "%3F", "#": "%23"}
"""What would end the name of an object in a URI, or be read as another character."""


class BadAddressError(ValueError):
    """A URI or the environment names no store; the message is a sentence without secrets."""


def is_uri(text: str) -> bool:
    """Return whether ``text`` names a store by scheme (``s3://bucket/key``)."""
    return _URI.match(text) is not None


def split_uri(uri: str) -> SplitResult:
    """Return the parts of a store's URI.

    Raises:
        BadAddressError: It is no URI, or holds a ``#``, which would end its name unseen.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise BadAddressError(f"{uri!r} is no URI ({error}); correct it") from None
    if "#" in uri:
        raise BadAddressError(f"{uri!r} holds a '#', which ends a URI's name; write it as %23")
    return parts


def escaped(name: str) -> str:
    """Return the name of an object as it is written in a URI."""
    return "".join(_ESCAPED.get(character, character) for character in name)


def split_options(text: str) -> tuple[str, str]:
    """Return a place's name and the options of its store, with their ``?``; a path has none."""
    head, mark, query = text.partition("?") if is_uri(text) else (text, "", "")
    return head, mark + query


def absolute(text: str, *, beside: str) -> str:
    """Return ``text`` as an absolute local path or a URI.

    Args:
        text: A path (``~`` is the home folder), relative or absolute, or a URI. ``file://``
            becomes a path.
        beside: The folder, path or URI, that relative paths start from.
    """
    if text.startswith("file://"):
        return unquote(urlsplit(text).path)
    if is_uri(text):
        return text
    if text.startswith("~"):
        with suppress(RuntimeError):  # nobody of that name: a file that is called so
            return str(Path(text).expanduser())
    if text.startswith("/"):
        return text
    if is_uri(beside):
        head, options = split_options(beside)
        scheme, rest = head.split("://", 1)
        return f"{scheme}://{_normal(f'{rest}/{text}')}{options}"
    return _normal(str(Path(beside).absolute() / text))


def joined(folder: str, name: str) -> str:
    """Return the place of ``name`` in ``folder``, a path or a URI."""
    head, options = split_options(folder)
    return f"{head.rstrip('/')}/{name}{options}"


def parent(text: str) -> str:
    """Return the folder that the file ``text`` is in."""
    head, options = split_options(text)
    folder, _, _ = head.rpartition("/")
    return (folder or "/") + options


def _normal(path: str) -> str:
    """Return ``path`` without ``.`` and ``..``, and without asking the disk about links."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if len(kept) > 1:
                kept.pop()
        elif part != "." and (part or not kept):
            kept.append(part)
    return "/".join(kept)
