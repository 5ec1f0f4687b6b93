"""The last stage: a unit's images are scored and committed where they arrive.

Both in one process, because images that cross to another one are copied, and because each stage of
a graph costs its driver about as much as the whole rest of a unit does. While one unit is scored
another is encoded and written, so a slow disk or store holds up nothing.
"""

from collections.abc import Callable

import pyarrow as pa

from pipelines.stages.commit import CommitUnits
from pipelines.stages.score import ScoreImages
from pipelines.units.message import read_messages

AT_ONCE = 2
"""Units in an actor at the same time: one is scored, one is stored."""


class FinishUnits:
    """Actor of the last stage.

    Args:
        load_score: Makes what scores units, where the actor runs.
        store: Commits them.
    """

    def __init__(self, load_score: Callable[[], ScoreImages], store: CommitUnits) -> None:
        self._score = load_score()
        self._store = store

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the receipts (``schemas.RECEIPTS``) of the units of ``batch``."""
        return pa.concat_tables(self._store(self._score(unit)) for unit in read_messages(batch))
