"""How files of the model hub are named: ``owner/name@revision:folder/file.safetensors``.

Pure arithmetic on names; ``hub_files`` asks. Such a name stands for the same bytes everywhere once
its revision is a commit, so that is what plans and rows hold.
"""

import re
from dataclasses import dataclass, replace
from urllib.parse import unquote

HUB_ROOT = "hf://"
"""What a service's roots begin with where they open repositories: ``hf://owner/name``."""

REPOSITORY = r"\w[\w.\-]*/\w[\w.\-]*"
REVISION = r"\w[\w.\-]*(?:/\w[\w.\-]*)*"
"""No part begins with a dot: the hub's client makes paths of them, and ``..`` leads anywhere."""

_HUB_FILE = re.compile(rf"({REPOSITORY})@({REVISION}):(.*)", re.DOTALL)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATH = re.compile(r"(?:[^./\\][^/\\]*(?:/[^./\\][^/\\]*)*)?")

_PAGE = re.compile(
    rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/({REPOSITORY})"
    rf"(?:/(?:resolve|blob|tree|raw)/([^/?#]+)(?:/([^?#]*))?)?(?:[?#].*)?"
)
_HF_URI = re.compile(r"hf://(?:models/)?(\w[\w.\-]*/[\w.\-]+)(?:@([^/]+))?(?:/(.*))?")
_AT_END = re.compile(rf"(?:\A|.*?/)({REPOSITORY})(?:@({REVISION}))?(?::(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file or folder of a model repository at the hub.

    Attributes:
        repository: ``owner/name``.
        revision: A branch, a tag or a commit.
        path: Within the repository; empty for its root.
    """

    repository: str
    revision: str
    path: str

    def __str__(self) -> str:
        """Return the name as catalogs have it."""
        return f"{self.repository}@{self.revision}:{self.path}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a whole commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> "HubFile":
        """Return the same file at another revision."""
        return replace(self, revision=revision)

    def inside(self, name: str) -> "HubFile":
        """Return the file ``name`` in this folder."""
        return replace(self, path=f"{self.path}/{name}" if self.path else name)

    def beside(self, name: str) -> "HubFile":
        """Return the file ``name`` in the folder that this file is in."""
        folder, slash, _ = self.path.rpartition("/")
        return replace(self, path=f"{folder}{slash}{name}")


def hub_file(text: str) -> HubFile | None:
    """Return the file of the hub that ``text`` names, None if it names none."""
    found = _HUB_FILE.fullmatch(text)
    if found is None:
        return None
    path = found[3].rstrip("/")
    return HubFile(found[1], found[2], path) if _PATH.fullmatch(path) else None


def hub_hint(place: str) -> str:
    """Return what to write if ``place`` was meant as a file of the hub; nothing if it was not.

    What lacks a part of the name is read as a path, and so may have become an absolute one.

    Args:
        place: A path where nothing is, or a URI that is no store's.
    """
    found = _PAGE.fullmatch(place) or _HF_URI.fullmatch(place)
    if found is not None:
        revision, path = unquote(found[2] or "main"), unquote(found[3] or "FILE.safetensors")
        return f"; for a file of the hub write {found[1]}@{revision}:{path}"
    found = _AT_END.fullmatch(place)
    repository, revision, path = found.groups() if found else (None, None, None)
    if revision is None:
        if path is None or not path.endswith(".safetensors"):
            return ""
        return (
            f"; if it is a file of the hub, write {repository}@REVISION:{path}, with a branch "
            "(main), a tag or best a commit as REVISION"
        )
    if path is None:
        if revision.endswith(".safetensors"):  # a folder whose name has an @
            return ""
        return (
            f"; if it is a repository of the hub, write {repository}@{revision}:FILE.safetensors, "
            "or end the name with a colon for what peft has saved at its root"
        )
    return (
        f"; a file of the hub is {repository}@{revision}:FOLDER/FILE.safetensors, and no part "
        "of that is empty or begins with a dot"
    )


def is_open_repository(repository: str, root: str) -> bool:
    """Return whether ``root`` (``hf://``, ``hf://owner`` or ``hf://owner/name``) opens it."""
    if not root.startswith(HUB_ROOT):
        return False
    opened = root.removeprefix(HUB_ROOT).rstrip("/")
    return not opened or f"{repository}/".startswith(f"{opened}/")
