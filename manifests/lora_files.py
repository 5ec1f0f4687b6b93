"""The files behind the catalog's names: fetched, inspected and named by content, once each.

A file that cannot be used is no reason to stop: the rows that name it get its sentence and a
digest that says so, and all others are made.
"""

from dataclasses import dataclass
from pathlib import Path

from manifests.catalog import LoraEntry
from manifests.digests import broken_digest
from manifests.file_cache import local_copy
from manifests.locations import LocationError
from manifests.lora_family import misfit
from manifests.lora_file import LoraFileInfo, LoraFileProblem, inspect_lora_file

__all__ = ["LoraFileState", "LoraFiles"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraFileState:
    """What the file of one catalog entry is.

    Attributes:
        digest: Identity of the tensors; ``broken:...`` if the file cannot be used.
        info: What it holds, or None if it cannot be used.
        problem: Why it cannot be used, as a sentence that names it, or None.
    """

    digest: str
    info: LoraFileInfo | None
    problem: str | None


class LoraFiles:
    """Looks at LoRA files when rows first name them, and remembers what it saw.

    Args:
        cache: Folder for fetched files; the user's cache if None.
    """

    def __init__(self, *, cache: Path | None = None) -> None:
        self._cache = cache
        self._seen: dict[LoraEntry, LoraFileState] = {}
        self._states: dict[tuple[LoraEntry, int | None], LoraFileState] = {}

    def state(self, entry: LoraEntry, *, model_width: int | None = None) -> LoraFileState:
        """Return the state of the entry's file; never raises for what is in the file.

        Args:
            entry: Of the catalog.
            model_width: Cross-attention width of the base model that it goes on; a LoRA of another
                cannot be used. None if it isn't known.
        """
        asked = (entry, model_width)
        if asked not in self._states:
            if entry not in self._seen:
                self._seen[entry] = self._look(entry)
            self._states[asked] = _on_model(self._seen[entry], entry, model_width)
        return self._states[asked]

    @property
    def broken(self) -> tuple[tuple[str, str], ...]:
        """Catalog name of each file that cannot be used as it was asked for, and why."""
        found = (
            (entry.name, state.problem)
            for (entry, _), state in self._states.items()
            if state.problem is not None
        )
        return tuple(dict.fromkeys(found))

    def _look(self, entry: LoraEntry) -> LoraFileState:
        try:
            path = local_copy(entry.uri, sha256=entry.sha256, cache=self._cache)
        except LocationError as error:
            return LoraFileState(digest="broken:missing", info=None, problem=str(error))
        try:
            info = inspect_lora_file(path)
            _check_sha256(entry, info)
        except LoraFileProblem as problem:
            # A fetched file is called by its hash here; people know it by its URI.
            sentence = str(problem).replace(str(path), entry.uri)
            return LoraFileState(digest=broken_digest(path), info=None, problem=sentence)
        return LoraFileState(digest=info.digest, info=info, problem=None)


def _check_sha256(entry: LoraEntry, info: LoraFileInfo) -> None:
    if entry.sha256 is not None and entry.sha256 != info.file_sha256:
        raise LoraFileProblem(
            f"{entry.uri} has the sha256 {info.file_sha256} and the catalog says "
            f"{entry.sha256}: it is another file; download it again or correct the catalog"
        )


def _on_model(state: LoraFileState, entry: LoraEntry, model_width: int | None) -> LoraFileState:
    """Return the state of a file for a base model: one that does not fit cannot be used."""
    info = state.info
    if info is None:
        return state
    reason = misfit(
        family=info.family, lora_width=info.cross_attention_width, model_width=model_width
    )
    if reason is None:
        return state
    digest = f"broken:{info.file_sha256}"
    return LoraFileState(digest=digest, info=None, problem=f"{entry.uri} {reason}")
