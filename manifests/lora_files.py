"""The files behind the catalog's names: fetched, inspected and named by content, once each.

A file that cannot be used is no reason to stop: the rows that name it get its sentence and a
digest that says so, and all others are made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from manifests.catalog import LoraEntry
from manifests.digests import broken_digest
from manifests.file_cache import local_copy
from manifests.locations import LocationError
from manifests.lora_family import misfit
from manifests.lora_file import LoraFileInfo, LoraFileProblem, inspect_lora_file
from manifests.safetensors_header import Header, read_header

__all__ = ["FindMisfit", "LoraFileState", "LoraFiles"]

FindMisfit = Callable[[Path, Header], str | None]
"""Takes a usable LoRA file and its header; returns why it does not fit the base model, or None."""


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
        model_width: Cross-attention width of the base model; LoRAs of another are refused. None
            if it isn't known.
        find_misfit: Compares layers with the base model's; None if its layers aren't known.
        cache: Folder for fetched files; the user's cache if None.
    """

    def __init__(
        self,
        *,
        model_width: int | None = None,
        find_misfit: FindMisfit | None = None,
        cache: Path | None = None,
    ) -> None:
        self._model_width = model_width
        self._find_misfit = find_misfit
        self._cache = cache
        self._states: dict[LoraEntry, LoraFileState] = {}

    def state(self, entry: LoraEntry) -> LoraFileState:
        """Return the state of the entry's file; never raises for what is in the file."""
        if entry not in self._states:
            self._states[entry] = self._look(entry)
        return self._states[entry]

    @property
    def broken(self) -> dict[str, str]:
        """Why each unusable file that was asked for cannot be used, by catalog name."""
        return {
            entry.name: state.problem
            for entry, state in self._states.items()
            if state.problem is not None
        }

    def _look(self, entry: LoraEntry) -> LoraFileState:
        try:
            path = local_copy(entry.uri, sha256=entry.sha256, cache=self._cache)
        except LocationError as error:
            return LoraFileState(digest="broken:missing", info=None, problem=str(error))
        try:
            info = inspect_lora_file(path)
            self._check_fit(entry, path, info)
        except LoraFileProblem as problem:
            # A fetched file is called by its hash here; people know it by its URI.
            sentence = str(problem).replace(str(path), entry.uri)
            return LoraFileState(digest=broken_digest(path), info=None, problem=sentence)
        return LoraFileState(digest=info.digest, info=info, problem=None)

    def _check_fit(self, entry: LoraEntry, path: Path, info: LoraFileInfo) -> None:
        if entry.sha256 is not None and entry.sha256 != info.file_sha256:
            raise LoraFileProblem(
                f"{entry.uri} has the sha256 {info.file_sha256} and the catalog says "
                f"{entry.sha256}: it is another file; download it again or correct the catalog"
            )
        reason = misfit(
            family=info.family, lora_width=info.cross_attention_width, model_width=self._model_width
        )
        if reason is not None:
            raise LoraFileProblem(f"{entry.uri} {reason}")
        sentence = None if self._find_misfit is None else self._find_misfit(path, read_header(path))
        if sentence is not None:
            raise LoraFileProblem(sentence)
