from pathlib import Path

import pytest

from jobs.exit_code import JobEnd, exit_code_of
from jobs.remote.submission import (
    JobTry,
    content_name,
    entrypoint,
    last_try,
    try_name,
    try_number,
)


def test_equal_work_has_one_name_and_any_other_work_another():
    path = Path("/jobs/Autumn Sale/job.yaml")
    name = content_name(path, {"rows": ["a", "b"], "job": {"x": 1.0}})
    assert name == content_name(path, {"job": {"x": 1}, "rows": ["a", "b"]})
    assert name.startswith("clora-autumn-sale-job-")
    assert name != content_name(path, {"rows": ["a"], "job": {"x": 1}})
    assert name != content_name(Path("/jobs/winter/job.yaml"), {"rows": ["a", "b"]})


def test_a_name_holds_only_what_any_shell_and_url_can():
    name = content_name(Path("/w/ä ö/$(rm -rf)/..job.yaml"), {})
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize("number", [1, 2, 17])
def test_attempts_are_counted_back_from_their_names(number: int):
    assert try_number("nightly", try_name("nightly", number)) == number


@pytest.mark.parametrize("other", ["nightly-try0", "nightly-2", "anightly", "nightly-try2-try2"])
def test_other_names_are_no_attempts(other: str):
    assert try_number("nightly", other) is None


def test_the_last_attempt_is_the_one_with_the_largest_number():
    jobs = [
        ("n-try2", "STOPPED"),
        (None, "RUNNING"),
        ("n-try10", "RUNNING"),
        ("n", "FAILED"),
        ("m-try11", "FAILED"),
    ]
    assert last_try("n", jobs) == JobTry(number=10, status="RUNNING")
    assert last_try("k", jobs) is None


def test_a_job_in_the_folder_that_is_sent_is_named_relative_to_it():
    command = entrypoint("compose", Path("/w/a b/job.yaml"), Path("/w"))
    assert command == "python -m jobs compose 'a b/job.yaml'"
    away = entrypoint("compose", Path("/data/job.yaml"), Path("/w"))
    assert away == "python -m jobs compose /data/job.yaml"


@pytest.mark.parametrize(
    ("end", "told_account", "code", "sentence"),
    [
        (JobEnd(status="SUCCEEDED", driver_exit_code=0), True, 0, None),
        (JobEnd(status="FAILED", driver_exit_code=1), True, 1, None),
        (JobEnd(status="FAILED", driver_exit_code=1), False, 1, "did not come to its end"),
        (JobEnd(status="FAILED", driver_exit_code=2), False, 2, None),
        (JobEnd(status="FAILED", driver_exit_code=130), False, 130, None),
        (JobEnd(status="FAILED", driver_exit_code=-9), False, 1, "ended with -9"),
        (JobEnd(status="STOPPED"), False, 130, "the same command continues"),
        (
            JobEnd(status="FAILED", error_type="RUNTIME_ENV_SETUP_FAILURE", message="no disk"),
            False,
            1,
            "nothing was started: no disk",
        ),
        (
            JobEnd(status="FAILED", error_type="JOB_SUPERVISOR_ACTOR_DIED", message="node lost"),
            False,
            1,
            "node lost",
        ),
    ],
)
def test_the_exit_code_is_that_of_compose(
    end: JobEnd, told_account: bool, code: int, sentence: str | None
):
    found, told = exit_code_of(end, told_account=told_account)
    assert found == code
    assert (told is None) if sentence is None else (told is not None and sentence in told)


def test_failures_before_the_start_are_among_those_that_ray_knows():
    from ray.dashboard.modules.job.common import JobErrorType

    from jobs.exit_code import _NEVER_STARTED

    assert set(_NEVER_STARTED) < {kind.value for kind in JobErrorType}
