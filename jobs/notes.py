"""What commands say beside their results, on standard error: sentences, or lines of JSON."""

import json
import sys
from datetime import UTC, datetime
from typing import TextIO

from manifests.text.text_rules import printable


def note(text: str) -> None:
    """Print sentences to standard error, with escapes for what a terminal would obey."""
    print("\n".join(printable(line) for line in text.split("\n")), file=sys.stderr)


def log_event(
    event: str,
    run_id: str | None,
    *,
    stream: TextIO | None = None,
    now: datetime | None = None,
    **values: object,
) -> None:
    """Print a JSON object with the time, the event and the run, and whatever else is given."""
    time = (now or datetime.now(UTC)).isoformat(timespec="milliseconds")
    line = {"time": time, "event": event, "run": run_id, **values}
    print(json.dumps(line), file=stream or sys.stderr, flush=True)
