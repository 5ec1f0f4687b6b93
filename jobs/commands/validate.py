"""``clora validate``: every problem of a job's inputs at once, before any of them costs a GPU.

Prints problems to standard error and a short summary to standard output. Here, unlike in a run,
a LoRA file that cannot be used counts: whoever asks beforehand wants to know. Loads neither torch
nor Ray, so that it runs on any machine in a moment.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clora_core.recipe.errors import CloraError
from clora_core.recipe.row import Row
from jobs.console.carried import carried_described
from jobs.exit_code import ALL_MADE, BAD_INPUT, command
from jobs.job.inputs import PreparedJob, prepare
from jobs.job.job_file import load_job
from jobs.job.output_places import output_problems
from jobs.notes import note
from manifests.text.problems import InputError, Problem, render
from manifests.text.wording import first_lines, listed

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
        prepared = prepare(job, place=str(path))
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
        broken = sum(row.problem is not None for row in prepared.rows)
        note(render(prepared.problems))
        note(f"{broken:,} of {len(prepared.rows):,} row(s) name such a file")
        if prepared.unknown_layers:
            note(_layers_checked(prepared))
        return BAD_INPUT
    print(summary(prepared))
    remarks = Counter(remark for row in prepared.rows for remark in row.remarks)
    lines = [f"{count:,} row(s): {remark}" for remark, count in remarks.most_common()]
    for line in first_lines(lines, MAX_LISTED):
        note(line)
    return ALL_MADE


def summary(prepared: PreparedJob) -> str:
    """Return what a good job would make, in a few lines."""
    rows = prepared.rows
    models = prepared.models_by_digest
    num_images = len({row.key for row in rows})
    twice = f" ({len(rows) - num_images:,} are there twice)" if num_images < len(rows) else ""
    lines = [
        f"{len(rows):,} row(s), {num_images:,} image(s){twice}; no problems",
        "  methods:   " + _counted(Counter(row.method for row in rows)),
        "  LoRA sets: "
        + _counted(Counter(" + ".join(use.name for use in row.loras) or "none" for row in rows)),
        *_texts(rows),
        "  sizes:     " + _counted(Counter(f"{row.width}x{row.height}" for row in rows)),
        "  models:    " + _counted(Counter(models[row.base_model_digest].label for row in rows)),
        f"  LoRAs:     {_layers_checked(prepared)}",
        f"  scoring:   {prepared.scoring.described()}",
        *(f"  left out:  {text}" for text in prepared.left_out_columns()),
    ]
    if prepared.carried:
        lines.append(f"  carried:   {carried_described(prepared.carried)}")
    return "\n".join(lines)


def _texts(rows: Sequence[Row]) -> list[str]:
    """Return how many rows are read in several windows of the text encoder, if any are."""
    longest = [row.text_chunks for row in rows if (row.text_chunks or 1) > 1]
    if not longest:
        return []
    most = max(count or 1 for count in longest)
    return [
        f"  prompts:   {len(longest):,} row(s) have more than the text encoder reads at once, and "
        f"are read in up to {most} chunks"
    ]


def _layers_checked(prepared: PreparedJob) -> str:
    if not prepared.unknown_layers:
        return "every layer has its place in its model"
    reasons = "; ".join(prepared.unknown_layers)
    return f"not checked whether every layer has its place: {reasons}"


def _counted(counts: Counter[str]) -> str:
    return listed([f"{name} ({count:,})" for name, count in counts.most_common()], MAX_LISTED)
