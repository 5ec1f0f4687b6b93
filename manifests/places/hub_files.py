"""Files of the model hub on this machine: each fetched once, into the cache of the hub's client.

The client keeps a file under its repository and commit, whole or not at all, and lets one process
of a machine fetch it while others wait. What is there is used without asking anyone. What is not
is asked for with a short timeout first, because the client itself waits for minutes where nothing
answers. The client is imported where it is needed: that takes a second.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from manifests.places.file_cache import MAX_FILE_BYTES
from manifests.places.hub_names import HubFile
from manifests.places.hub_problems import hub_closed, hub_problem, may_pass
from manifests.places.locations import LocationError, StoreAwayError
from manifests.places.patience import RETRY_S, Patience
from manifests.text.wording import did_you_mean

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

REQUEST_S = 10.0
"""Of silence, after which a question counts as failed."""

_sizes: dict[tuple[str, str], Mapping[str, int | None]] = {}
"""What was seen of repositories at commits, which never change."""

Answer = TypeVar("Answer")


def pinned(named: HubFile) -> HubFile:
    """Return the file at the commit that its revision stands for now.

    Where the hub is closed or does not answer, it is the commit that this machine saw last.

    Raises:
        LocationError: There is no such repository or revision, or it may not be read.
        StoreAwayError: The hub does not answer, and no commit was seen before.
    """
    if named.is_pinned:
        return named
    seen = _seen_commit(named)
    if seen is not None and _is_closed():
        return named.at(seen)
    try:
        # Where a commit was seen, one try says enough.
        info = _asked(named, retry_s=RETRY_S if seen is None else 0.0)
    except StoreAwayError:
        if seen is None:
            raise
        return named.at(seen)
    at_commit = named.at(info.sha or "")
    if not at_commit.is_pinned:
        raise LocationError(
            f"{named}: the hub gives no commit for this revision; write the 40 digits of a commit"
        )
    _remember(named, at_commit.revision)
    _sizes[named.repository, at_commit.revision] = _listed(info)
    return at_commit


def cached_copy(named: HubFile) -> Path | None:
    """Return the local copy of a pinned file, None if it was not fetched. Asks nobody."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(named.repository, named.path, revision=named.revision)
    except ValueError as error:  # the client knows more rules for names
        raise hub_problem(named, error) from error
    return Path(found) if isinstance(found, str) else None


def hub_copy(named: HubFile, *, max_bytes: int = MAX_FILE_BYTES) -> Path:
    """Return the local copy of a file, fetched if need be.

    Args:
        named: Pinned.
        max_bytes: More than this is not fetched.

    Raises:
        LocationError: It is not there, may not be read or is too large, or the hub is closed.
        StoreAwayError: The hub does not answer, a download broke off, or the disk takes none.
    """
    copy = cached_copy(named)
    if copy is not None:
        return copy
    sizes = hub_sizes(named)
    if named.path not in sizes:
        files = tuple(path for path in sizes if path.endswith(".safetensors"))
        raise LocationError(
            f"{named} does not exist: the repository has no such file at this revision; "
            f"{did_you_mean(named.path, files or tuple(sizes))}"
        )
    num_bytes = sizes[named.path]
    if num_bytes is not None and num_bytes > max_bytes:
        raise LocationError(f"{named} has {num_bytes:,} bytes; at most {max_bytes:,} are fetched")
    return _fetched(named)


def optional_hub_copy(named: HubFile, *, max_bytes: int) -> Path | None:
    """Return the local copy of a file that need not be there, None if it is not.

    Args:
        named: Pinned.
        max_bytes: As in ``hub_copy``.

    Raises:
        LocationError, StoreAwayError: As ``hub_copy``.
    """
    copy = cached_copy(named)
    # Like the client, which knows by an empty file what a commit does not have.
    mark = _folder(named) / ".no_exist" / named.revision / named.path
    if copy is not None or mark.exists():
        return copy
    if named.path in hub_sizes(named):
        return hub_copy(named, max_bytes=max_bytes)
    with suppress(OSError):
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return None


def hub_sizes(named: HubFile) -> Mapping[str, int | None]:
    """Return the files of a pinned file's repository, with their sizes in bytes where known.

    Raises:
        LocationError, StoreAwayError: As ``hub_copy``.
    """
    key = named.repository, named.revision
    if key not in _sizes:
        _sizes[key] = _listed(_asked(named, retry_s=RETRY_S))
    return _sizes[key]


def _asked(named: HubFile, *, retry_s: float) -> "ModelInfo":
    """Return what the hub says of a repository at a revision."""
    from huggingface_hub import HfApi

    if _is_closed():
        raise hub_closed(named)
    return _repeated(
        named,
        lambda: HfApi().model_info(
            named.repository, revision=named.revision, timeout=REQUEST_S, files_metadata=True
        ),
        retry_s=retry_s,
    )


def _listed(info: "ModelInfo") -> dict[str, int | None]:
    return {file.rfilename: file.size for file in info.siblings or ()}


def _fetched(named: HubFile) -> Path:
    from huggingface_hub import hf_hub_download

    path = _repeated(
        named,
        lambda: hf_hub_download(named.repository, named.path, revision=named.revision),
        retry_s=RETRY_S,
    )
    return Path(path)


def _repeated(named: HubFile, request: Callable[[], Answer], *, retry_s: float) -> Answer:
    """Return what ``request`` gives; whatever goes wrong is one sentence about ``named``."""
    try:
        return _patience.repeated(request, retry_s=retry_s)
    except Exception as error:  # the client raises its own, its HTTP library's, and OSError
        raise hub_problem(named, error) from error


def _is_closed() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _seen_commit(named: HubFile) -> str | None:
    """Return the commit that a branch or tag had when it was last asked for, by any program."""
    with suppress(OSError, UnicodeDecodeError):
        path = _folder(named) / "refs" / named.revision
        commit = path.read_text(encoding="ascii").strip()
        return commit if named.at(commit).is_pinned else None
    return None


def _remember(named: HubFile, commit: str) -> None:
    """Write the commit where the client keeps them, for when the hub is away."""
    path = _folder(named) / "refs" / named.revision
    if _seen_commit(named) == commit:
        return
    with suppress(OSError):  # a cache that cannot be written may have all that is needed
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
        with os.fdopen(handle, "w") as target:
            target.write(commit)
        Path(temporary).replace(path)


def _folder(named: HubFile) -> Path:
    """Return where the client keeps a repository: ``refs``, ``snapshots`` and more are in it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{named.repository.replace('/', '--')}"


_patience = Patience(may_pass)
"""Of this process with the hub."""
