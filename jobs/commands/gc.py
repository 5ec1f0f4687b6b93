"""``clora gc``: what killed runs left in an output, shown or removed."""

from collections.abc import Sequence

from jobs.exit_code import ALL_MADE, SOME_FAILED, command
from jobs.notes import note
from manifests.places.place_names import absolute
from manifests.text.wording import first_lines
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease_record import latest_lease
from pipelines.leases.makers import live_makers
from pipelines.storage.storage import open_storage
from pipelines.upkeep.garbage import Garbage, find_garbage, remove_garbage

MAX_LISTED = 10


@command(refused=SOME_FAILED)
def gc(output: str, *, delete: bool = False, times: LeaseTimes | None = None) -> int:
    """Print what nothing in ``output`` refers to, and remove it if asked to.

    Args:
        output: An output folder.
        delete: Remove it; refused while a run works on the output.
        times: How long a run that may be dead is watched; ``LeaseTimes()`` if None.

    Returns:
        0, or 1 if the output cannot be read or is being written.
    """
    storage = open_storage(absolute(output, beside="."))
    if delete:
        garbage = remove_garbage(storage, times=times or LeaseTimes(), note=note)
    else:
        garbage = find_garbage(storage)
        lease = latest_lease(storage)
        runs = [lease] if lease is not None and lease.state == "live" else []
        for run in (*runs, *live_makers(storage)):
            note(f"{run.described()} may be about to use some of these")
    print(_described(garbage, delete=delete))
    return ALL_MADE


def _described(garbage: Garbage, *, delete: bool) -> str:
    lines = [
        *_listed("images without a row", garbage.images),
        *_listed("writes that broke off", garbage.unfinished),
        *_listed("marks and claims of committed units", garbage.marks),
        *_listed("indexes of units that are no more", garbage.indexes),
    ]
    verb = "removed" if delete else "to remove"
    hint = "" if delete or not garbage.names else " (clora gc OUT --delete removes them)"
    return "\n".join([*lines, f"{len(garbage.names):,} files {verb}{hint}"])


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    return [f"{len(names):,} {title}", *(f"  {line}" for line in first_lines(names, MAX_LISTED))]
