"""The last stage: a unit's images are scored and committed where they arrive.

Both in one process, because images that cross to another one are copied, and because each stage of
a graph costs its driver about as much as the whole rest of a unit does. While one unit is scored
another is encoded and written, so a slow disk or store holds up nothing. What was fused is
committed already, and its receipt passes through.
"""

from collections.abc import Callable

import pyarrow as pa

from pipelines.stages.phases import FusionPhase, Latest, Phases
from pipelines.stages.score import LoadScorer, ScoreImages
from pipelines.units.message import UnitMessage, read_messages

AT_ONCE = 2
"""Units in an actor at the same time: one is scored, one is stored."""


class FinishUnits:
    """Actor of the last stage; holds one scorer for its life, over all phases of a run.

    Args:
        load_scorer: Makes the scorer, where the actor runs; None leaves images unscored.
        phases: Says what is done with the units of a phase.
    """

    def __init__(self, load_scorer: LoadScorer | None, phases: Phases) -> None:
        self._scorer = load_scorer() if load_scorer else None
        self._phases = phases
        self._finish = Latest(self._finisher)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the receipts (``schemas.RECEIPTS``) of the messages of ``batch``."""
        messages = zip(batch["phase"].to_pylist(), read_messages(batch), strict=True)
        return pa.concat_tables(self._finish(phase)(message) for phase, message in messages)

    def _finisher(self, phase: int) -> Callable[[UnitMessage], pa.Table]:
        """Return what finishes the messages of a phase."""
        work = self._phases.work(phase)
        if isinstance(work, FusionPhase):
            return _receipts
        score = ScoreImages(self._scorer, work.load_centroids, scores_windows=work.scores_windows)
        return lambda message: work.store(score(message))


def _receipts(message: UnitMessage) -> pa.Table:
    return message.rows
