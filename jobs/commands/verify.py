"""``clora verify``: whether an output keeps its promise, and with ``--repair`` what can be done."""

from collections import Counter

from jobs.exit_code import ALL_MADE, SOME_FAILED, command
from jobs.notes import note
from manifests.places.place_names import absolute, joined
from manifests.text.wording import first_lines
from pipelines.fusing.fused_files import fused_keys
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.storage.storage import Storage, open_storage
from pipelines.upkeep.repair import Repair, repair_output
from pipelines.upkeep.verify import damaged_files, nested_outputs, verify_units

MAX_LISTED = 20


@command(refused=SOME_FAILED)
def verify(output: str, *, repair: bool = False, times: LeaseTimes | None = None) -> int:
    """Print what is wrong with ``output`` and its references; return 0 if nothing is, else 1.

    Args:
        output: An output folder.
        repair: Restore what can be restored, set aside what cannot, and verify again.
        times: How long a run that may be dead is watched before a repair; ``LeaseTimes()`` if None.
    """
    storage = open_storage(absolute(output, beside="."))
    if repair:
        times = times or LeaseTimes()
        print(_described(repair_output(storage, times=times, note=note), storage))
    outputs = [storage, *(open_storage(joined(storage.uri, n)) for n in nested_outputs(storage))]
    counts = [_verify(each) for each in outputs]
    num_units, num_rows, num_problems = (sum(column) for column in zip(*counts, strict=True))
    num_fused = sum(len(fused_keys(each)) for each in outputs)
    if not num_units and not num_problems and not num_fused:
        note(f"{output}: nothing is committed here")
        return SOME_FAILED
    fused = f" and {num_fused:,} fused adapter(s)" if num_fused else ""
    print(
        f"{num_rows:,} committed rows in {num_units:,} units{fused}, {num_problems:,} problem(s)"
        + ("" if num_problems else ": every row has its image, once, unchanged")
    )
    return SOME_FAILED if num_problems else ALL_MADE


def _verify(storage: Storage) -> tuple[int, int, int]:
    """Print the first problems of one output; return its units, rows and problems."""
    counts: Counter[str] = Counter()

    def complain(problem: str) -> None:
        counts["problems"] += 1
        if counts["problems"] <= MAX_LISTED:
            note(problem)

    for check in verify_units(storage):
        counts["units"] += 1
        counts["rows"] += check.num_rows
        counts["unwritten"] += check.num_unwritten
        for problem in check.problems:
            complain(problem)
    for damage in damaged_files(storage):
        complain(str(damage))
    if counts["problems"] > MAX_LISTED:
        note(f"... and {counts['problems'] - MAX_LISTED:,} more")
    if counts["unwritten"]:
        note(
            f"{counts['unwritten']:,} image(s) of {storage.uri} are in their units and not yet "
            "files: the run that made them writes them, or else the next one that uses them"
        )
    return counts["units"], counts["rows"], counts["problems"]


def _described(done: Repair, storage: Storage) -> str:
    restored = [f"restored    {name}" for name in done.restored]
    lines = first_lines(restored, MAX_LISTED, more="more files restored")
    # Each of these is named: they are where somebody may want to look.
    for damage, target in done.set_aside:
        lines.append(f"set aside   {damage.place}/{damage.name}: it {damage.reason}")
        lines.append(f"            now {damage.place}/{target}")
    if done.num_units:
        lines.append(f"the next `clora compose` makes the rows of {done.num_units:,} unit(s) again")
    return "\n".join(lines or [f"{storage.uri}: nothing to repair"])
