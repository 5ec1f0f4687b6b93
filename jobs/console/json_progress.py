"""Progress as JSON lines, for whatever collects logs: one object a line, the run's id in each.

``event`` is ``begin``, ``unit``, ``note`` or ``error``. No line has a prompt, a row's id or a
LoRA's name but for notes and errors, which are the sentences that people get.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from jobs.notes import log_event
from pipelines.units.receipts import Phase, Receipt


class JsonProgress:
    """Writes a line for every unit that is committed.

    Args:
        stream: Where lines go.
        run_id: Of the run, as in its record and in every committed row.
        now: The time; tests give their own.
    """

    def __init__(
        self,
        stream: TextIO,
        run_id: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stream = stream
        self._run_id = run_id
        self._now = now
        self._phase = Phase.IMAGES
        self._num_rows = 0
        self._num_done = 0

    def begin(self, phase: Phase, num_rows: int) -> None:
        """Write that a phase begins."""
        self._phase, self._num_rows, self._num_done = phase, num_rows, 0
        self._write("begin", phase=phase, rows=num_rows)

    def stored(self, receipt: Receipt) -> None:
        """Write what became of a unit."""
        self._num_done += len(receipt.rows)
        facts = receipt.facts
        stages = Counter(row.stage for row in receipt.rows if not row.made)
        self._write(
            "unit",
            phase=self._phase,
            unit=receipt.unit_id,
            committed=receipt.committed,
            made=receipt.num_made,
            failed=receipt.num_failed,
            failed_by_stage={str(stage): count for stage, count in stages.items()},
            rows_done=self._num_done,
            rows=self._num_rows,
            generate_seconds=facts.generate_seconds,
            score_seconds=facts.score_seconds,
            write_seconds=facts.write_seconds,
            device=facts.device,
        )

    def note(self, text: str) -> None:
        """Write a sentence."""
        self._write("note", text=text)

    def _write(self, event: str, **values: object) -> None:
        log_event(event, self._run_id, stream=self._stream, now=self._now(), **values)
