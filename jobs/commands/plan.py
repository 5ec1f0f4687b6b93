"""``clora plan``: what a run would make and cost. Leaves nothing, starts nothing."""

from collections.abc import Mapping
from pathlib import Path

from clora_core.recipe.cost import fusion_evaluations
from jobs.console.carried import carried_described
from jobs.console.estimate import COST_COLUMNS, Estimate, estimate
from jobs.console.progress import duration
from jobs.exit_code import ALL_MADE, command
from jobs.job.base_models import JobModel
from jobs.job.inputs import Scoring, prepare
from jobs.job.job_file import load_job
from jobs.job.output_places import output_problems
from jobs.job.planning_place import check_here
from jobs.job.run_request import run_request
from jobs.notes import note
from manifests.text.problems import InputError
from pipelines.fusing.plan import FusionPlan
from pipelines.ledger.ledger import read_ledger
from pipelines.planning.plan import Plan
from pipelines.run_plan import plan_references, plan_row_fusions, plan_rows
from pipelines.units.output_table import read_output_rows


@command()
def plan(path: str | Path) -> int:
    """Print the plan of the job at ``path``; return the exit code.

    0, 1 if the output cannot be used now, 2 if the input is bad or the output never can be.
    """
    job = load_job(path)
    prepared = prepare(job, place=str(path), check=check_here(note))
    request = run_request(job, prepared)
    problems = output_problems(job, place=str(path))
    if problems:
        raise InputError(problems)
    rows = plan_rows(request, read_ledger(request.storage), note=note)
    references = plan_references(request, rows)
    fusions = plan_row_fusions(request, rows)
    made = read_output_rows(request.storage, COST_COLUMNS)
    made_references = read_output_rows(request.references_storage, COST_COLUMNS)
    cost = estimate(rows.members_by_unit(), made)
    print(_described(rows, references, prepared.scoring, job.resources.rows_per_unit))
    if fusions.num_rows:
        print(_fusions_described(fusions))
    if len(prepared.models_by_digest) > 1:
        print(_by_model(rows, prepared.models_by_digest))
    print(_costs("UNet evaluations", cost, job.resources.actors))
    if references is not None and references.num_rows:
        cost = estimate(references.members_by_unit(), made_references)
        print(_costs("  for references", cost, job.resources.actors))
    if prepared.carried:
        print(f"columns carried   {carried_described(prepared.carried)}")
    for problem in prepared.problems:
        print(f"will fail         {problem}")
    return ALL_MADE


def _described(rows: Plan, references: Plan | None, scoring: Scoring, rows_per_unit: int) -> str:
    lines = [
        f"rows              {rows.num_manifest_rows:,}",
        f"  already made    {rows.num_already_made:,}",
        f"  equal to others {rows.num_duplicates:,}",
    ]
    if rows.quarantined:
        lines.append(f"  failed too often {len(rows.quarantined):,} (`clora retry` tries again)")
    lines.append(
        f"to make           {rows.num_rows:,} in {rows.num_units:,} units of at most "
        f"{rows_per_unit:,}"
    )
    if references is not None:
        lines.append(
            f"references        {references.num_rows:,} to make, "
            f"{references.num_already_made:,} there; images are scored against "
            f"{scoring.num_references:,} of each LoRA (scoring.references)"
        )
    return "\n".join(lines)


def _fusions_described(fusions: FusionPlan) -> str:
    """Return which adapters are fused first, and how often a sample goes through the UNet for it.

    Of images that a recipe needs and nobody has made as references, nothing is known here.
    """
    methods = ", ".join(f"{method} {count:,}" for method, count in fusions.by_method.items())
    evaluations = sum(
        fusion_evaluations(fusion.method, len(fusion.loras), fusion.sampler)
        for fusion in fusions.fusions
    )
    return (
        f"fused adapters    {len(fusions.fusions):,} to make{f' ({methods})' if methods else ''}, "
        f"{fusions.num_already_made:,} there, for {fusions.num_rows:,} rows\n"
        f"  evaluations     {evaluations:,}"
    )


def _by_model(rows: Plan, models: Mapping[str, JobModel]) -> str:
    """Return how many rows are to be made with each base model, in the order of the plan."""
    counts = sorted(rows.uses.models.items())
    return "\n".join(f"  {count:<16,}with {models[digest].label}" for digest, count in counts)


def _costs(title: str, cost: Estimate, actors: int) -> str:
    total = sum(cost.evaluations.values())
    by_method = ", ".join(f"{method} {count:,}" for method, count in cost.evaluations.items())
    detail = f" ({by_method})" if len(cost.evaluations) > 1 else ""
    if cost.seconds is None:
        methods = ", ".join(cost.unmeasured)
        time = f"unknown: nothing was made with {methods} here at this size by its base model yet"
    else:
        time = (
            f"about {duration(cost.seconds / actors)} with {actors} actor(s), loading not counted"
        )
    lines = [f"{title:<18}{total:,}{detail}"]
    if cost.shared.num_rows:
        lines.append(
            f"  first phase     shared by {cost.shared.num_rows:,} rows: "
            f"{cost.shared.evaluations:,} evaluations fewer"
        )
    return "\n".join([*lines, f"  estimated time  {time}"])
