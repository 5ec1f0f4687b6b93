"""What a command that reads an output does about damage: name it, use the rest, and own up.

A command passes one of these to all that it reads. What was left out makes it end with another
exit code than 0; an image that was found in its row instead of its file leaves nothing out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipelines.storage.storage import Storage
from pipelines.units.committed_image import read_image
from pipelines.units.output_files import DamagedFileError


@dataclass(kw_only=True)
class Damages:
    """Damage that was met.

    Attributes:
        note: Gets a sentence for each damaged file, once.
        left_out: Names of the files of which something was left out.
    """

    note: Callable[[str], None]
    left_out: set[str] = field(default_factory=set[str])
    _named: set[str] = field(default_factory=set[str])

    def skip(self, damage: DamagedFileError) -> None:
        """Name a damaged file that is left out."""
        self.left_out.add(f"{damage.place}/{damage.name}")
        self._name(str(damage))

    def image(self, storage: Storage, row: Mapping[str, Any]) -> bytes | None:
        """Return the PNG that was committed with a row; None if it is lost.

        Args:
            storage: The output.
            row: ``committed_image.IMAGE_COLUMNS`` of it.
        """
        try:
            return read_image(storage, row, note=self._name)
        except DamagedFileError as error:
            self.skip(error)
            return None

    def _name(self, text: str) -> None:
        if text not in self._named:
            self._named.add(text)
            self.note(text)
