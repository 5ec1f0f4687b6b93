"""The files behind the catalog's names: fetched, inspected and named by content, once each.

A file that cannot be used is no reason to stop: the rows that name it get its sentence and a
digest that says so, and all others are made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clora_core.recipe.errors import LoraFileError
from manifests.loras.catalog import LoraEntry
from manifests.loras.file import LoraContent, LoraFileInfo, lora_content
from manifests.loras.fingerprint import lora_fingerprint
from manifests.loras.fit import LoraFit
from manifests.loras.local_lora import by_catalog_names, local_lora
from manifests.loras.scales import lora_scales
from manifests.places.hub_files import pinned
from manifests.places.hub_names import hub_file
from manifests.places.locations import LocationError
from manifests.weights.digests import broken_digest

_ANY_MODEL = LoraFit()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraFileState:
    """What the file of one catalog entry is.

    Attributes:
        digest: Identity of tensors and strength; ``broken:...`` if the file cannot be used.
        info: What it holds, or None if it cannot be used.
        problem: Why it cannot be used, as a sentence that names it, or None.
        fingerprint: The same for the same LoRA in another format; None if it cannot be used, or if
            its scales cannot be read.
    """

    digest: str
    info: LoraFileInfo | None
    problem: str | None
    fingerprint: str | None = None


class LoraFiles:
    """Looks at LoRA files when rows first name them, and remembers what it saw.

    Args:
        cache: Folder for fetched files; the user's cache if None.
    """

    def __init__(self, *, cache: Path | None = None) -> None:
        self._cache = cache
        self._seen: dict[LoraEntry, tuple[LoraFileState, Path | None]] = {}
        self._states: dict[tuple[LoraEntry, LoraFit], LoraFileState] = {}
        self._commits: dict[tuple[str, str], str] = {}

    def state(self, entry: LoraEntry, fit: LoraFit = _ANY_MODEL) -> LoraFileState:
        """Return the state of the entry's file; never raises for what is in the file.

        Args:
            entry: Of the catalog.
            fit: What the base model that it goes on asks; a LoRA that does not fit cannot be used.
        """
        asked = (entry, fit)
        if asked not in self._states:
            if entry not in self._seen:
                self._seen[entry] = self._look(entry)
            self._states[asked] = self._on_model(entry, fit)
        return self._states[asked]

    def place(self, entry: LoraEntry) -> str:
        """Return where the entry's file is, once ``state`` was asked for it.

        It is the entry's own URI, and of a file of the model hub the name with the commit that all
        machines shall use.
        """
        of_hub = hub_file(entry.uri)
        commit = None if of_hub is None else self._commits.get((of_hub.repository, of_hub.revision))
        return entry.uri if of_hub is None or commit is None else str(of_hub.at(commit))

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        """Catalog name of each file that cannot be used as it was asked for, and why."""
        found = (
            (entry.name, state.problem)
            for (entry, _), state in self._states.items()
            if state.problem is not None
        )
        return tuple(dict.fromkeys(found))

    @property
    def seen(self) -> Mapping[str, str]:
        """What each file was that was looked at, and where, by catalog name."""
        return {
            entry.name: f"{self.place(entry)} {state.digest}"
            for entry, (state, _) in self._seen.items()
        }

    def _look(self, entry: LoraEntry) -> tuple[LoraFileState, Path | None]:
        """Return the state of a file whatever it goes on, and where it is if it can be used."""
        try:
            self._pin(entry)
            path = local_lora(self.place(entry), sha256=entry.sha256, cache=self._cache)
        except LocationError as error:
            problem = str(error).replace(self.place(entry), entry.uri)
            return LoraFileState(digest="broken:missing", info=None, problem=problem), None
        try:
            content = lora_content(path)
            info = content.info
            _check_sha256(entry, info)
        except LoraFileError as error:
            return _broken(entry, path, broken_digest(path), str(error)), None
        mark = _fingerprint(path, content)
        return LoraFileState(digest=info.digest, info=info, problem=None, fingerprint=mark), path

    def _pin(self, entry: LoraEntry) -> None:
        """Find what commit a branch or tag of the hub is; all files of it are of the same one."""
        of_hub = hub_file(entry.uri)
        if of_hub is not None:
            revision = of_hub.repository, of_hub.revision
            if revision not in self._commits:
                self._commits[revision] = pinned(of_hub).revision

    def _on_model(self, entry: LoraEntry, fit: LoraFit) -> LoraFileState:
        state, path = self._seen[entry]
        if state.info is None or path is None:
            return state
        try:
            fit.check(path, state.info)
        except LoraFileError as error:
            return _broken(entry, path, f"broken:{state.info.file_sha256}", str(error))
        return state


def _fingerprint(path: Path, content: LoraContent) -> str | None:
    try:
        scales = lora_scales(path, content.header, content.layers, content.settings)
        return lora_fingerprint(content, scales)
    except (LoraFileError, OSError):
        return None  # the sampler says so of the rows that have it


def _broken(entry: LoraEntry, path: Path, digest: str, sentence: str) -> LoraFileState:
    named = by_catalog_names(sentence, path, entry.uri)
    return LoraFileState(digest=digest, info=None, problem=named)


def _check_sha256(entry: LoraEntry, info: LoraFileInfo) -> None:
    if entry.sha256 is not None and entry.sha256 != info.file_sha256:
        raise LoraFileError(
            f"{entry.uri} has the sha256 {info.file_sha256} and the catalog says "
            f"{entry.sha256}: it is another file; download it again or correct the catalog"
        )
