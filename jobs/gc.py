"""``clora gc``: what killed runs left in an output, shown or removed."""

import sys
from collections.abc import Sequence

from jobs.exit_code import EXPECTED_ERRORS
from manifests.locations import absolute
from pipelines.garbage import Garbage, find_garbage, remove_garbage
from pipelines.heartbeat import LeaseTimes
from pipelines.lease_record import latest_lease
from pipelines.makers import live_makers
from pipelines.storage import open_storage

__all__ = ["gc"]

DONE = 0
REFUSED = 1
MAX_LISTED = 10


def gc(output: str, *, delete: bool = False, times: LeaseTimes | None = None) -> int:
    """Print what nothing in ``output`` refers to, and remove it if asked to.

    Args:
        output: An output folder.
        delete: Remove it; refused while a run works on the output.
        times: How long a run that may be dead is watched; the engine's own if None.

    Returns:
        0, or 1 if the output cannot be read or is being written.
    """
    try:
        storage = open_storage(absolute(output, beside="."))
        if delete:
            garbage = remove_garbage(
                storage,
                times=times or LeaseTimes(),
                note=lambda text: print(text, file=sys.stderr),
            )
        else:
            garbage = find_garbage(storage)
            lease = latest_lease(storage)
            runs = [lease] if lease is not None and lease.state == "live" else []
            for run in (*runs, *live_makers(storage)):
                print(f"{run.described()} may be about to use some of these", file=sys.stderr)
    except EXPECTED_ERRORS as error:
        print(error, file=sys.stderr)
        return REFUSED
    print(_described(garbage, delete=delete))
    return DONE


def _described(garbage: Garbage, *, delete: bool) -> str:
    lines = [
        *_listed("images without a row", garbage.images),
        *_listed("writes that broke off", garbage.unfinished),
        *_listed("marks and claims of committed units", garbage.marks),
    ]
    verb = "removed" if delete else "to remove"
    hint = "" if delete or not garbage.names else " (clora gc OUT --delete removes them)"
    return "\n".join([*lines, f"{len(garbage.names):,} files {verb}{hint}"])


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = len(names) - MAX_LISTED
    shown = [f"  {name}" for name in names[:MAX_LISTED]]
    return [f"{len(names):,} {title}", *shown, *([f"  ... and {more:,} more"] if more > 0 else [])]
