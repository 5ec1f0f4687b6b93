"""The places that a job itself names, held against what a service allows.

``manifests.places.allowed_roots`` judges what catalogs and rows name. Where jobs come from
strangers, their own inputs and output are judged by the same list before any of them is touched.
"""

from collections.abc import Mapping

from jobs.job.job_file import JobFile
from jobs.job.model_names import EMOJI_WORLD, is_hub_name, model_setting
from manifests.places.allowed_roots import VARIABLE, AllowedRoots, allowed_roots
from manifests.text.problems import InputError, Problem, problems_at


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


def job_names(job: JobFile) -> dict[str, str]:
    """Return what a job names, by setting: places, and models by hub id.

    Args:
        job: From ``load_job``, its paths absolute.
    """
    named_by_job = {
        "manifest": job.manifest,
        "output": job.output,
        "loras": job.loras,
        **{model_setting(name): model for name, model in job.models.items()},
        "scoring.model": job.scoring.model,
        "scoring.references_at": job.scoring.references_at,
        "fused_at": job.fused_at,
    }
    return {field: name for field, name in named_by_job.items() if name not in (None, EMOJI_WORLD)}


def job_places(job: JobFile) -> dict[str, str]:
    """Return the places that a job names, by setting; models named by hub id stay open."""
    models = {"scoring.model", *map(model_setting, job.models)}
    return {
        field: name
        for field, name in job_names(job).items()
        if not (field in models and is_hub_name(name))
    }


def refuse_outside(places: Mapping[str, str], allowed: AllowedRoots, *, place: str) -> None:
    """Refuse a file that names a place outside.

    Args:
        places: From ``job_places``, as far as they are used.
        allowed: From ``service_roots``.
        place: The file, for messages.

    Raises:
        InputError: With a problem for every setting that names such a place.
    """
    refusals = {field: allowed.refusal(value) for field, value in places.items()}
    found = [(field, text) for field, text in refusals.items() if text is not None]
    if found:
        raise InputError(problems_at(place, found))
