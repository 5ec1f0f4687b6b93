"""Submitting, against a job server that is a list."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from input_kit import row, write_job

from jobs.commands import submit as module
from jobs.commands.submit import OLDEST_RAY, submit
from jobs.exit_code import JobEnd
from jobs.remote.server_error import ServerError

ROOT = Path(__file__).parents[2]
ACCOUNT = "1 made, 0 failed, 0 skipped\n"


class FakeServer:
    """Runs nothing: a job ends as ``end`` says once its log was followed."""

    address = "http://fake:8265"

    def __init__(self, end: JobEnd | None = None, logs: tuple[str, ...] = (ACCOUNT,)) -> None:
        self.known: dict[str, str] = {}
        self.commands: list[str] = []
        self.ends = end or JobEnd(status="SUCCEEDED", driver_exit_code=0)
        self.logs = [logs]
        self.ray = "2.60.0"
        self.refusals: list[str] = []

    def __call__(self, _address: str | None) -> "FakeServer":
        return self

    def versions(self) -> tuple[str, str]:
        return self.ray, "3.11.9"

    def jobs(self) -> list[tuple[str | None, str]]:
        return list(self.known.items())

    def submit(self, submission_id: str, command: str, folder: Path, told: dict[str, str]) -> bool:
        if self.refusals:
            raise ServerError(self.refusals.pop(0))
        if submission_id in self.known:
            return False
        assert folder.is_absolute()
        assert told["clora-batch"]
        self.known[submission_id] = "RUNNING"
        self.commands.append(command)
        return True

    def follow(self, submission_id: str) -> Iterator[str]:
        yield from self.logs[0]
        if len(self.logs) > 1:
            self.logs.pop(0)
        else:
            self.known[submission_id] = self.ends.status

    def end(self, submission_id: str) -> JobEnd | None:
        return None if self.known[submission_id] == "RUNNING" else self.ends


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_EVERY_S", 0.0)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(tmp_path / "sent", [row()], output=str(tmp_path / "out"))


def test_the_log_is_shown_and_the_end_is_the_exit_code(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    server = FakeServer(JobEnd(status="FAILED", driver_exit_code=2), ("job.yaml: ", "bad\n"))
    assert submit(job, working_dir=job.parent, connect=server) == 2
    assert capsys.readouterr().out == "job.yaml: bad\n"
    assert server.commands == ["python -m jobs compose job.yaml"]


def test_the_same_work_is_submitted_once_and_its_end_told_again(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    server = FakeServer()
    assert [submit(job, working_dir=job.parent, connect=server) for _ in range(2)] == [0, 0]
    assert len(server.commands) == 1
    told = capsys.readouterr()
    assert "is done already; nothing was submitted" in told.err
    assert told.out == 2 * ACCOUNT


def test_a_running_job_is_taken_up(job: Path, capsys: pytest.CaptureFixture[str]):
    server = FakeServer()
    server.known["nightly"] = "RUNNING"
    assert submit(job, working_dir=job.parent, submission_id="nightly", connect=server) == 0
    assert not server.commands
    assert "nightly runs already" in capsys.readouterr().err


def test_work_that_failed_or_was_stopped_is_tried_again_under_a_number(job: Path):
    server = FakeServer()
    server.known |= {"nightly": "STOPPED", "nightly-try2": "FAILED"}
    assert submit(job, working_dir=job.parent, submission_id="nightly", connect=server) == 0
    assert server.known["nightly-try3"] == "SUCCEEDED"


def test_of_two_at_one_moment_the_second_follows_the_first(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    class Raced(FakeServer):
        def jobs(self) -> list[tuple[str | None, str]]:
            self.known["nightly"] = "RUNNING"
            return []

    server = Raced()
    assert submit(job, working_dir=job.parent, submission_id="nightly", connect=server) == 0
    assert not server.commands
    assert "was submitted by another at this moment" in capsys.readouterr().err


def test_other_rows_or_another_lora_are_other_work(job: Path):
    server = FakeServer()
    submit(job, working_dir=job.parent, connect=server)
    lora = job.parent / "loras/cat.safetensors"
    lora.write_bytes((job.parent / "loras/dog.safetensors").read_bytes())
    submit(job, working_dir=job.parent, connect=server)
    (job.parent / "rows.jsonl").write_text('{"prompt": "a cat", "loras": ["cat"], "seed": 1}\n')
    submit(job, working_dir=job.parent, connect=server)
    assert len(server.commands) == len(server.known) == 3


def test_a_lost_connection_repeats_nothing_of_the_log(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    server = FakeServer()
    server.logs = [("images 1/3\n",), ("images 1/3\nimages", " 2/3\n", "1 made, 2 failed\n")]
    assert submit(job, working_dir=job.parent, connect=server) == 0
    assert capsys.readouterr().out == "images 1/3\nimages 2/3\n1 made, 2 failed\n"


def test_ctrl_c_lets_go_of_the_job_and_says_how_to_stop_it(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    class Interrupted(FakeServer):
        def follow(self, submission_id: str) -> Iterator[str]:
            yield f"log of {submission_id}\n"
            raise KeyboardInterrupt

    server = Interrupted()
    assert submit(job, working_dir=job.parent, submission_id="n", connect=server) == 130
    assert server.known == {"n": "RUNNING"}
    assert "`ray job stop n` stops it" in capsys.readouterr().err


def test_a_head_without_an_agent_yet_is_asked_again_and_any_other_refusal_ends(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    server = FakeServer()
    server.refusals = ["500: No available agent to submit job, please try again later."]
    assert submit(job, working_dir=job.parent, connect=server) == 0
    server.refusals = ["403: not you"]
    assert submit(job, working_dir=job.parent, submission_id="other", connect=server) == 1
    assert "403: not you" in capsys.readouterr().err


def test_a_cluster_with_an_older_ray_is_refused_with_both_versions(
    job: Path, capsys: pytest.CaptureFixture[str]
):
    server = FakeServer()
    server.ray = "2.9.3"
    assert submit(job, working_dir=job.parent, connect=server) == 2
    assert "the cluster runs Ray 2.9.3 and this release needs 2.60" in capsys.readouterr().err
    assert not server.commands


def test_the_oldest_ray_is_the_one_that_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (ray,) = [text for text in project["dependencies"] if text.startswith("ray[")]
    assert ray.endswith(">=" + ".".join(map(str, OLDEST_RAY)))


def test_bad_input_is_told_before_any_server_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def nobody(_address: str | None) -> FakeServer:
        raise AssertionError("asked a server")

    bad = write_job(tmp_path / "bad", [row(seed=-1)], output=str(tmp_path / "out"))
    assert submit(bad, working_dir=bad.parent, connect=nobody) == 2
    assert "seed" in capsys.readouterr().err


def test_nobody_at_the_address_is_a_sentence(job: Path, capsys: pytest.CaptureFixture[str]):
    code = submit(job, working_dir=job.parent, address="http://127.0.0.1:9")
    assert code == 1, "it may come back"
    assert "no job server answers at --address 'http://127.0.0.1:9'" in capsys.readouterr().err
