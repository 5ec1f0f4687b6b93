from pathlib import Path
from typing import Any

import pytest
from input_kit import row, write_job

from jobs.job.inputs import prepare
from jobs.job.job_file import load_job
from jobs.job.run_request import run_request
from manifests.places.patience import RETRY_S
from manifests.text.problems import InputError
from pipelines.request import RunRequest

STORE: dict[str, Any] = {
    "output": "s3://bucket/out",
    "scoring": {"references_at": "s3://bucket/references"},
}


def asked(folder: Path, **resources: Any) -> RunRequest:
    path = write_job(folder, [row()], resources=resources, **STORE)
    job = load_job(path)
    return run_request(job, prepare(job, place=str(path)))


def test_both_stores_of_a_job_have_its_patience_and_no_row_gets_another_key(tmp_path: Path):
    usual, other = asked(tmp_path / "one"), asked(tmp_path / "two", store_retry_s=2.5)
    for request, retry_s in ((usual, RETRY_S), (other, 2.5)):
        for storage in (request.storage, request.references_storage):
            assert storage.__reduce__()[1][1] == retry_s
    assert [one.key for one in usual.rows] == [one.key for one in other.rows]


@pytest.mark.parametrize("seconds", [-1, 86_401, float("nan"), float("inf"), "long"])
def test_a_patience_that_is_no_time_is_refused_by_name(tmp_path: Path, seconds: Any):
    path = write_job(tmp_path, [row()], resources={"store_retry_s": seconds})
    with pytest.raises(InputError) as refused:
        load_job(path)
    assert [problem.field for problem in refused.value.problems] == ["resources.store_retry_s"]
