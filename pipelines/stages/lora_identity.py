"""Whether a LoRA file is still the one that its rows were planned with.

A row's key holds the digest of its LoRAs, of their tensors and their strengths, taken when the
manifest was checked, perhaps on another machine and hours ago. If the file at that place was
replaced since, making the row would put the new LoRA's picture under the old one's key, and no one
would ever know.
"""

import os
from collections.abc import Callable, Sequence

from clora_core.recipe.errors import LoraFileError, Stage
from clora_core.recipe.row import Lora, Row
from clora_core.results import ComposedImage, RowFailure
from manifests.loras.file import inspect_lora_file
from manifests.loras.local_lora import identity_files

Result = ComposedImage | RowFailure


_Seen = tuple[str, int, int]
"""A file's path, size and time of change; zeros where there is none."""


class LoraIdentity:
    """Takes the digest of each file once, and again when its size or time of change differ."""

    def __init__(self) -> None:
        self._digests: dict[tuple[_Seen, ...], str] = {}

    def problem(self, lora: Lora) -> str | None:
        """Return why the file of ``lora`` must not be used, None if it is the planned one."""
        try:
            seen = tuple(map(_seen, identity_files(lora.uri)))
            if seen not in self._digests:
                self._digests[seen] = inspect_lora_file(lora.uri).digest
        except (LoraFileError, OSError) as error:
            return f"LoRA {lora.name!r} cannot be used any more: {error}"
        digest = self._digests[seen]
        if digest == lora.digest:
            return None
        return (
            f"{lora.uri} was replaced since the run was planned: it has the digest {digest} now, "
            f"LoRA {lora.name!r} was planned with {lora.digest}; run the same command "
            "again to make the row with the new file, under a key of its own"
        )


def _seen(path: str) -> _Seen:
    try:
        info = os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return path, 0, 0
    return path, info.st_size, info.st_mtime_ns


def compose_unchanged(
    rows: Sequence[Row],
    compose: Callable[[Sequence[Row]], list[Result]],
    identity: LoraIdentity,
) -> list[Result]:
    """Return one result per row, in order; rows whose LoRA files changed are not composed."""
    results: dict[int, Result] = {}
    for index, row in enumerate(rows):
        # What was fused was compared when it was fused, and the adapter has a digest of its own.
        files = [lora for lora in row.sampled_loras if lora is not row.fused]
        problem = next(filter(None, map(identity.problem, files)), None)
        if problem is not None:
            results[index] = RowFailure(stage=Stage.LORA, error="LoraFileChanged", message=problem)
    unchanged = [index for index in range(len(rows)) if index not in results]
    if unchanged:
        composed = compose([rows[index] for index in unchanged])
        results |= dict(zip(unchanged, composed, strict=True))
    return [results[index] for index in range(len(rows))]
