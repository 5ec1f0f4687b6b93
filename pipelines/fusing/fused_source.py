"""Where a row of a fused method gets its adapter when it is about to be sampled."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from clora_core.recipe.errors import Stage
from clora_core.recipe.fusion import Fusion, fusion_of
from clora_core.recipe.row import Row
from clora_core.results import RowFailure
from manifests.places.file_cache import local_copy
from manifests.places.place_names import joined
from pipelines.fusing.fused_files import check_content, fused_name
from pipelines.storage.storage import Storage
from pipelines.units.output_files import DamagedFileError

MAX_FUSED_BYTES = 32 * 1024**3
"""An adapter has the ranks of all its LoRAs together, in float32."""


@dataclass(frozen=True, kw_only=True)
class FusedSource:
    """Fused adapters as generating actors get them; can be sent to any machine.

    Attributes:
        storage: Where they are.
        dtype: Numbers that base models compute with.
        failures: Why an adapter could not be made in this run, by its key.
    """

    storage: Storage
    dtype: str
    failures: Mapping[str, RowFailure] = field(default_factory=dict[str, RowFailure])
    _checked: dict[str, str] = field(
        default_factory=dict[str, str], init=False, compare=False, repr=False
    )

    def prepare(self, row: Row) -> Row | RowFailure:
        """Return the row with its adapter, or why there is none; other rows as they are."""
        fusion = fusion_of(row, dtype=self.dtype)
        if fusion is None:
            return row
        if fusion.key in self.failures:
            failure = self.failures[fusion.key]
            message = f"its LoRAs were not fused: {failure.message}"
            return replace(failure, message=message)
        try:
            uri = self._checked_file(fusion)
        except FileNotFoundError:
            return _failed(
                "FusedAdapterGone",
                f"the adapter {fusion.adapter_name} is not in {self.storage.uri} any more; run the "
                "same command again, which makes it anew",
            )
        except DamagedFileError as error:
            return _failed("FusedAdapterDamaged", str(error))
        return replace(row, fused=fusion.lora(uri))

    def _checked_file(self, fusion: Fusion) -> str:
        name = fused_name(fusion.key)
        if not self.storage.exists(name):
            raise FileNotFoundError(name)
        if fusion.key not in self._checked:
            path = local_copy(joined(self.storage.uri, name), max_bytes=MAX_FUSED_BYTES)
            check_content(self.storage, name, path.read_bytes())
            self._checked[fusion.key] = str(path)
        return self._checked[fusion.key]


def _failed(error: str, message: str) -> RowFailure:
    return RowFailure(stage=Stage.FUSE, error=error, message=message)
