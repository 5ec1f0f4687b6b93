"""The places that a job itself names, held against what a service allows.

``manifests.allowed_roots`` judges what catalogs and rows name; where jobs come from strangers, too,
their own inputs and their output are judged by the same list, before any of them is touched.
"""

from jobs.job_file import JobFile
from jobs.model_names import EMOJI_WORLD, is_hub_name, model_setting
from manifests.allowed_roots import VARIABLE, AllowedRoots, allowed_roots, named
from manifests.problems import InputError, Problem

__all__ = ["refuse_outside", "service_roots"]


def service_roots() -> AllowedRoots:
    """Return the roots that the environment names.

    Raises:
        InputError: The environment names something else.
    """
    try:
        return allowed_roots()
    except ValueError as error:
        problem = Problem(place="environment", field=VARIABLE, problem=str(error))
        raise InputError([problem]) from error


def refuse_outside(job: JobFile, allowed: AllowedRoots, *, place: str) -> None:
    """Refuse a job that names a place outside.

    The embedded world and models named by hub id are no places and stay open.

    Args:
        job: From ``load_job``, its paths absolute.
        allowed: From ``service_roots``.
        place: The job file, for messages.

    Raises:
        InputError: With a problem for every setting that names such a place.
    """
    places = {
        "manifest": job.manifest,
        "output": job.output,
        "loras": job.loras,
        **{
            model_setting(name): None if is_hub_name(model) else model
            for name, model in job.models.items()
        },
        "scoring.model": None if is_hub_name(job.scoring.model or "") else job.scoring.model,
        "scoring.references_at": job.scoring.references_at,
    }
    problems: list[Problem] = []
    for field, value in places.items():
        if value is None or value == EMOJI_WORLD:
            continue
        refusal = allowed.refusal(value)
        if refusal is not None:
            problems.append(Problem(place=place, field=field, problem=f"{named(value)} {refusal}"))
    if problems:
        raise InputError(problems)
