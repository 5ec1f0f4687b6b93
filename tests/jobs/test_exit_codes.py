"""Exit codes: 1 while something may come back, 2 if it never can, and where they are made."""

import ast
import importlib
import json
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_kit import BAD_ROW, FakeModelHost, FakeModelHostSource
from inline_engine import run_inline
from input_kit import row, write_job

from clora_core.recipe.errors import CloraError, NonFiniteImageError
from jobs.commands import compose as compose_module
from jobs.commands.catalog import catalog
from jobs.commands.compose import compose
from jobs.commands.plan import plan
from jobs.commands.validate import validate
from jobs.exit_code import command
from jobs.job.run_request import run_request
from jobs.remote.server_error import ServerError
from manifests.places.locations import StoreAwayError
from manifests.places.patience import GaveUpError
from manifests.tables.spool import SpoolError
from pipelines.leases.lease import LeaseHeldError, LeaseLostError
from pipelines.ledger import update_index
from pipelines.ledger.failure_budget import TooManyFailuresError
from pipelines.ledger.ledger import read_ledger
from pipelines.metrics.server import MetricsPortError
from pipelines.request import RunRequest
from pipelines.session.cluster_error import ClusterError
from pipelines.storage.error import PlaceError, StorageError
from pipelines.storage.local import LocalStorage

WRITES = (
    "leases/", "manifests/", "runs/", "plans/", "attempts/", "images/", "rows/", "errors/",
    "index/", "metrics.prom", "README.md", "images.csv", "contact_sheet.png",
)  # fmt: skip
"""Where a run writes."""

ROOT = Path(__file__).parents[2]
PACKAGES = ("clora_core", "manifests", "pipelines", "jobs", "cluster", "emoji_world")

PASSING = {
    ClusterError, GaveUpError, LeaseHeldError, LeaseLostError, MetricsPortError, ServerError,
    SpoolError, StorageError, StoreAwayError, TooManyFailuresError,
}  # fmt: skip
"""What may come back, so that the same command may do better."""

EXIT_CODES = {"exit_code", "ALL_MADE", "SOME_FAILED", "BAD_INPUT", "INTERRUPTED"}

ENDING = {
    ("jobs/exit_code.py", "CloraError"),
    # These say more than the sentence.
    ("jobs/commands/compose.py", "KeyboardInterrupt"),
    ("jobs/commands/catalog.py", "KeyboardInterrupt"),
    ("jobs/commands/submit.py", "KeyboardInterrupt"),
    ("jobs/commands/validate.py", "CloraError"),
}
"""Handlers that end a command with an exit code, and what they catch."""

BROAD = {
    ("jobs/exit_code.py", "CloraError"),
    ("jobs/commands/validate.py", "CloraError"),
    # One adapter's refusal is no other's.
    ("jobs/commands/lora_files/fuse.py", "CloraError"),
    # They add a sentence or the run, and raise it again.
    ("jobs/commands/catalog.py", "CloraError"),
    ("jobs/run_job.py", "CloraError"),
    # Libraries whose errors have no class in common.
    ("jobs/job/base_models.py", "Exception"),
    ("jobs/job/text_reader.py", "Exception"),
    ("jobs/pictures/picture.py", "Exception"),
    ("manifests/places/hub_files.py", "Exception"),
    ("manifests/places/patience.py", "Exception"),
    ("pipelines/session/cluster_session.py", "Exception"),
    ("pipelines/session/knock.py", "Exception"),
    ("pipelines/session/local_servers.py", "Exception"),
    ("pipelines/session/private_cluster.py", "Exception"),
    # What else a row, a fusion or a device can fail of is kept, or ends the process.
    ("pipelines/stages/generate.py", "Exception"),
    ("pipelines/stages/fuse_stage.py", "Exception"),
    ("pipelines/stages/model_actor.py", "Exception"),
    # They tidy, and raise it again.
    ("pipelines/leases/makers.py", "BaseException"),
    ("pipelines/session/private_cluster.py", "BaseException"),
    ("pipelines/run.py", "BaseException"),
}
"""Handlers that catch more than they can name."""


class Breaking(LocalStorage):
    """A disk that refuses every write of names that begin in one way."""

    def __init__(self, root: Path, start: str, error: type[StorageError] = StorageError) -> None:
        super().__init__(root)
        self._start = start
        self._error = error

    def _refuse(self, *names: str) -> None:
        if any(name.startswith(self._start) for name in names):
            raise self._error(f"{self.uri}/{names[0]} cannot be written: it is away")

    def put_all(self, files: Mapping[str, bytes]) -> None:
        self._refuse(*files)
        super().put_all(files)

    def put_parts(self, name: str, parts: Iterable[bytes]) -> None:
        self._refuse(name)
        super().put_parts(name, parts)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        self._refuse(name)
        return super().put_if_absent(name, content)

    def mark(self, name: str) -> None:
        self._refuse(name)
        super().mark(name)


def broken_request(start: str, error: type[StorageError] = StorageError) -> Any:
    """Return a stand-in for ``run_request``: fakes on a disk that breaks; an empty start never."""

    def make(*arguments: Any, **options: Any) -> RunRequest:
        asked = run_request(*arguments, **options)
        storage = Breaking(Path(asked.storage.uri), start or "nothing", error)
        return replace(asked, storage=storage, load_model_host=FakeModelHostSource())

    return make


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of five rows, one of which fails where it is sampled."""
    run_inline(monkeypatch)
    bad = row(prompt=f"a cat and a dog, {BAD_ROW}", seed=99)
    monkeypatch.setattr(FakeModelHostSource, "__call__", lambda _self, _shares: Failing())
    return write_job(tmp_path, [*(row(seed=seed) for seed in range(4)), bad])


class Failing(FakeModelHost):
    """The fake engine, which here fails rows that end in the word."""

    def compose(self, rows: Any) -> Any:
        return super().compose(
            [replace(r, prompt=BAD_ROW) if r.prompt.endswith(BAD_ROW) else r for r in rows]
        )


@pytest.mark.parametrize("start", WRITES)
def test_a_store_that_breaks_in_a_run_ends_with_1_and_a_sentence_and_the_same_command_completes_it(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], start: str
):
    monkeypatch.setattr(update_index, "MIN_UNITS", 1)
    monkeypatch.setattr(compose_module, "run_request", broken_request(start))
    assert compose(job) == 1
    said = capsys.readouterr().err
    assert "cannot be written: it is away" in said
    assert "Traceback" not in said
    monkeypatch.setattr(compose_module, "run_request", broken_request(""))
    assert compose(job) == 1, "the bad row alone"
    assert "1 failed" in capsys.readouterr().out
    ledger = read_ledger(LocalStorage(job.parent / "out"))
    assert (len(ledger.made), len(ledger.failed), ledger.num_doubled) == (4, 1, 0)


def test_with_a_json_log_the_last_line_of_a_broken_run_has_the_error_s_name(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(compose_module, "run_request", broken_request("images/"))
    assert compose(job, log_format="json") == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines].count("error") == 1
    last = lines[-1]
    assert (last["event"], last["error"], last["exit_code"]) == ("error", "storage", 1)
    assert last["run"] == lines[0]["run"]


@pytest.mark.parametrize("options", [{}, {"metrics_port": "x"}], ids=["no job", "no port"])
def test_with_a_json_log_what_ends_a_command_before_its_run_is_a_line_too(
    job: Path, capsys: pytest.CaptureFixture[str], options: dict[str, str]
):
    path = job if options else job.parent / "none.yaml"
    assert compose(path, log_format="json", **options) == 2
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (lines[-1]["event"], lines[-1]["run"]) == ("error", None)
    assert lines[-1]["error"] == ("metrics-address" if options else "input")


def test_a_place_that_never_can_be_written_is_2_before_a_run_and_1_within_one(
    job: Path, monkeypatch: pytest.MonkeyPatch
):
    for start, code in (("leases/", 2), ("images/", 1)):
        monkeypatch.setattr(compose_module, "run_request", broken_request(start, PlaceError))
        assert compose(job) == code


@pytest.mark.parametrize("start", ["editions/", "latest.json", "rows/"])
def test_a_catalog_whose_store_breaks_ends_with_1_and_the_next_one_publishes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    start: str,
):
    run_inline(monkeypatch)
    job = write_job(tmp_path, [row(seed=seed) for seed in range(3)])
    assert catalog(job, make_request=broken_request(start)) == 1
    assert "it is away\nnothing was published" in capsys.readouterr().err
    assert catalog(job, make_request=broken_request("")) == 0
    assert "edition 1 is the latest" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["file", "file/below", "/proc/clora", "n" * 300])
@pytest.mark.parametrize("command", [validate, plan, compose])
def test_an_output_that_cannot_be_written_is_found_before_anything_is_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Any, output: str
):
    (tmp_path / "file").write_text("mine")
    job = write_job(tmp_path, [row()], output=output)
    before = sorted(tmp_path.rglob("*"))
    assert command(job) == 2
    said = capsys.readouterr().err
    assert "name another output" in said or "name a shorter output" in said
    assert output.rpartition("/")[2] in said
    assert sorted(tmp_path.rglob("*")) == before


def test_validate_lists_a_bad_output_with_all_other_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    job = write_job(tmp_path, [row(seed=-1)], output="/proc/clora")
    assert validate(job) == 2
    said = capsys.readouterr().err
    assert "seed" in said
    assert "output" in said


@pytest.mark.parametrize("command", [validate, plan])
def test_a_store_that_is_away_is_1_for_commands_that_only_check(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: Any,
):
    def away(_self: LocalStorage) -> None:
        raise StorageError("the store is away")

    monkeypatch.setattr(LocalStorage, "check_writable", away)
    assert command(write_job(tmp_path, [row()])) == 1
    assert "the store is away" in capsys.readouterr().err


def subclasses(kind: type[CloraError]) -> Iterator[type[CloraError]]:
    for inner in kind.__subclasses__():
        yield inner
        yield from subclasses(inner)


def every_error() -> set[type[CloraError]]:
    """Return every class of the product's errors; imports all of its modules for that."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    return {kind for kind in subclasses(CloraError) if kind.__module__.split(".")[0] in PACKAGES}


def test_1_is_for_what_may_come_back_and_every_other_error_is_refused_again():
    assert {kind for kind in every_error() if kind.exit_code == 1} == PASSING
    assert {kind.exit_code for kind in every_error() - PASSING} == {2}


def test_every_error_has_a_name_of_its_own_and_the_manual_lists_them_by_exit_code():
    by_code: dict[int, list[str]] = {1: [], 2: []}
    for kind in every_error():
        by_code[kind.exit_code].append(kind.kind)
    assert len({*by_code[1], *by_code[2]}) == len(every_error())
    manual = (ROOT / "docs" / "operating.md").read_text()
    for code, names in by_code.items():
        listed = ", ".join(f"`{name}`" for name in sorted(names))
        assert f"| {listed} | {code} |" in manual


def test_an_error_is_named_by_its_class():
    assert (LeaseHeldError.kind, NonFiniteImageError.kind) == ("lease-held", "non-finite-image")


def test_an_expected_error_ends_a_command_with_its_code_and_what_was_added_to_its_sentence(
    capsys: pytest.CaptureFixture[str],
):
    def fail(error: Exception) -> int:
        error.add_note("nothing was published")
        raise error

    assert command()(fail)(LeaseHeldError("another \x1b[31mrun")) == 1
    assert capsys.readouterr().err == "another \\x1b[31mrun\nnothing was published\n"
    assert command()(fail)(PlaceError("no")) == 2
    assert command(refused=1)(fail)(PlaceError("no")) == 1
    with pytest.raises(ZeroDivisionError):
        command()(fail)(ZeroDivisionError("a fault of the program"))


def handlers(folder: str) -> Iterator[tuple[str, ast.ExceptHandler]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                yield str(path.relative_to(ROOT)), node


def caught(handler: ast.ExceptHandler) -> set[str]:
    """Return the names of the classes; ``BaseException`` for all."""
    return {"BaseException"} if handler.type is None else names(handler.type)


def names(node: ast.AST) -> set[str]:
    """Return the names and attributes that an expression or a statement has."""
    inner = list(ast.walk(node))
    attributes = {part.attr for part in inner if isinstance(part, ast.Attribute)}
    return attributes | {part.id for part in inner if isinstance(part, ast.Name)}


def test_one_place_makes_exit_codes_of_errors_and_these_say_more_before_they_end():
    ending = {
        (path, name)
        for path, handler in handlers("jobs")
        for returned in ast.walk(handler)
        if isinstance(returned, ast.Return) and EXIT_CODES & names(returned)
        for name in caught(handler)
    }
    assert ending == ENDING


def test_what_is_caught_whatever_it_is_is_this_and_no_more():
    found = {
        (path, name)
        for package in PACKAGES
        for path, handler in handlers(package)
        for name in caught(handler) & {"CloraError", "Exception", "BaseException"}
    }
    assert found == BROAD


@pytest.mark.parametrize("work", [compose, catalog])
def test_ray_s_job_server_in_the_environment_is_a_sentence_before_anything_is_written(
    job: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], work: Any
):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    assert work(job) == 2
    said = capsys.readouterr().err.splitlines()
    (sentence,) = [line for line in said if "is a job server" in line]
    assert "clora submit JOB --address http://head:8265`, or unset RAY_ADDRESS" in sentence
    assert len(said) <= 2
    assert not (job.parent / "out").exists()
    monkeypatch.delenv("RAY_ADDRESS")
    assert work(job, address="10.0.0.1") == 2
    assert "it has no port" in capsys.readouterr().err
