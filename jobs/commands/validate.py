"""``clora validate``: every problem of a job's inputs at once, before any of them costs a GPU.

Prints problems to standard error and a short summary to standard output. Here, unlike in a run,
a LoRA file that cannot be used counts: whoever asks beforehand wants to know. Loads neither torch
nor Ray, so that it runs on any machine in a moment.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from clora_core.recipe.errors import CloraError
from clora_core.recipe.row import Row
from jobs.console.carried import carried_described
from jobs.exit_code import ALL_MADE, BAD_INPUT, command
from jobs.job.inputs import PreparedJob, prepare
from jobs.job.job_file import load_job
from jobs.job.output_places import output_problems
from jobs.job.planning_place import check_here
from jobs.notes import note
from manifests.rows.stored_rows import StoredRows
from manifests.text.problems import InputError, Problem, render
from manifests.text.wording import first_lines, listed
from pipelines.ledger.counts import count_keys

MAX_LISTED = 8


@command()
def validate(path: str | Path) -> int:
    """Check the job at ``path`` and everything it names; return the exit code.

    0, 1 if its output or an input cannot be used now, 2 if something is bad.
    """
    problems: list[Problem] = []
    prepared = None
    job = load_job(path)
    try:
        prepared = prepare(job, place=str(path), check=check_here(note))
    except InputError as error:
        problems += error.problems
    try:
        problems += output_problems(job, place=str(path))
    except CloraError as error:
        if not problems:
            raise
        note(f"{render(problems)}\n{error}")
        return BAD_INPUT
    if problems or prepared is None:
        raise InputError(problems)
    if prepared.problems:
        broken = sum(count for row, count in prepared.rows.kinds() if row.problem is not None)
        note(render(prepared.problems))
        note(f"{broken:,} of {len(prepared.rows):,} row(s) name such a file")
        if prepared.unknown_layers:
            note(_layers_checked(prepared))
        return BAD_INPUT
    print(summary(prepared))
    remarks: Counter[str] = Counter()
    for row, count in prepared.rows.kinds():
        remarks.update(dict.fromkeys(row.remarks, count))
    lines = [f"{count:,} row(s): {remark}" for remark, count in remarks.most_common()]
    for line in first_lines(lines, MAX_LISTED):
        note(line)
    return ALL_MADE


def summary(prepared: PreparedJob) -> str:
    """Return what a good job would make, in a few lines."""
    rows, kinds = prepared.rows, list(prepared.rows.kinds())
    models = prepared.models_by_digest
    num_images = count_keys(rows.tables).num_distinct
    twice = f" ({len(rows) - num_images:,} are there twice)" if num_images < len(rows) else ""
    lines = [
        f"{len(rows):,} row(s), {num_images:,} image(s){twice}; no problems",
        "  methods:   " + _counted(kinds, lambda row: row.method),
        "  LoRA sets: "
        + _counted(kinds, lambda row: " + ".join(use.name for use in row.loras) or "none"),
        *_texts(rows),
        "  sizes:     " + _counted(kinds, lambda row: f"{row.width}x{row.height}"),
        "  models:    " + _counted(kinds, lambda row: models[row.base_model_digest].label),
        f"  LoRAs:     {_layers_checked(prepared)}",
        f"  scoring:   {prepared.scoring.described()}",
        *(f"  left out:  {text}" for text in prepared.left_out_columns()),
    ]
    if prepared.carried:
        lines.append(f"  carried:   {carried_described(prepared.carried)}")
    return "\n".join(lines)


def _texts(rows: StoredRows) -> list[str]:
    """Return how many rows are read in several windows of the text encoder, if any are."""
    counts: Counter[int] = Counter()
    for table in rows.tables():
        counts.update(count for count in table["text_chunks"].to_pylist() if (count or 1) > 1)
    if not counts:
        return []
    most = max(counts)
    return [
        f"  prompts:   {counts.total():,} row(s) have more than the text encoder reads at once, "
        f"and are read in up to {most} chunks"
    ]


def _layers_checked(prepared: PreparedJob) -> str:
    if not prepared.unknown_layers:
        return "every layer has its place in its model"
    reasons = "; ".join(prepared.unknown_layers)
    return f"not checked whether every layer has its place: {reasons}"


def _counted(kinds: Iterable[tuple[Row, int]], name_of: Callable[[Row], str]) -> str:
    counts: Counter[str] = Counter()
    for row, count in kinds:
        counts[name_of(row)] += count
    return listed([f"{name} ({count:,})" for name, count in counts.most_common()], MAX_LISTED)
