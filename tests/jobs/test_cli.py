import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from input_kit import row, write_job
from typer.main import get_command
from typer.testing import CliRunner

from jobs.cli import app, main

OPTIONS = {
    "demo": {"--out"},
    "validate": {"path"},
    "plan": {"path"},
    "compose": {"path", "--address", "--limit", "--metrics-port", "--log"},
    "retry": {"path", "--address"},
    "catalog": {"path", "--address", "--metrics-port", "--log"},
    "submit": {"path", "--address", "--id", "--working-dir", "--metrics-port", "--log"},
    "status": {"output"},
    "verify": {"output", "--repair"},
    "gc": {"output", "--delete"},
    "sweep": {"path"},
    "table": {"output", "--clip"},
    "report": {"output", "--clip"},
    "export": {"output", "--webdataset", "--folder", "--name"},
    "show": {"path"},
    "render": {"path", "--job", "--out", "--maps"},
    "fuse": {"path", "loras", "--out", "--method", "--naming", "--half"},
    "loras inspect": {"paths", "--catalog"},
    "loras convert": {
        "path",
        "--out",
        "--rank",
        "--max-error",
        "--base-model",
        "--naming",
        "--leave-out",
        "--half",
        "--force",
    },
}


def test_the_command_line_is_this_and_no_more():
    """New knobs go into the job file; a new option here is a decision."""
    found = {
        name: {parameter.opts[0] for parameter in command.params if parameter.name != "help"}
        for name, command in commands()
    }
    assert found == OPTIONS


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its name, those of a group with both names."""
    for name, command in get_command(app).commands.items():  # pyright: ignore[reportAttributeAccessIssue]
        inner = getattr(command, "commands", None)
        if inner is None:
            yield name, command
        else:
            yield from ((f"{name} {each}", found) for each, found in inner.items())


@pytest.mark.parametrize("name", OPTIONS)
def test_what_a_command_says_that_it_takes_is_what_its_function_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    """Its module is imported late, so no type checker sees the two together."""
    command = dict(commands())[name]
    asked: list[inspect.BoundArguments] = []

    def work_of(module: str) -> Any:
        def given(function: str) -> Any:
            signature = inspect.signature(getattr(importlib.import_module(module), function))
            # What ``looking`` gives to functions that only look.
            more = {"damages": None} if "damages" in signature.parameters else {}
            return lambda **values: asked.append(signature.bind(**more, **values)) or 7

        return type("Module", (), {"__getattr__": lambda _self, function: given(function)})()

    monkeypatch.setattr("jobs.cli.import_module", work_of)
    values = {
        parameter.name: parameter.default
        for parameter in command.params
        if parameter.name != "help"
    }
    with pytest.raises(typer.Exit) as ended:
        command.callback(**values)
    assert ended.value.exit_code == 7
    assert asked


def test_help_and_version_wait_for_no_model_library():
    code = """
import sys
from jobs.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
assert not {"torch", "ray", "pyarrow"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "compose" in done.stdout
    told = CliRunner().invoke(app, ["--version"])
    assert told.stdout.startswith("clora-batch ")


@pytest.mark.parametrize("command", ["compose", "plan", "validate"])
def test_bad_input_ends_with_2_every_problem_and_nothing_written(
    tmp_path: Path, command: str, capfd: pytest.CaptureFixture[str]
):
    rows = [
        row(row_id="a"),
        row(row_id="b", seed=-1),
        row(row_id="c", loras=["nobody"]),
        row(row_id="d", prompt=""),
        row(row_id="e", method="clorra"),
        row(row_id="f", width=13),
    ]
    job = write_job(tmp_path / "job", rows)
    with pytest.raises(SystemExit) as ended:
        main([command, str(job)])
    told = capfd.readouterr().err
    assert ended.value.code == 2
    for row_id in "bcdef":
        assert f"row '{row_id}'" in told
    assert not (tmp_path / "job" / "out").exists()


def test_ctrl_c_before_anything_is_made_ends_with_130(monkeypatch: pytest.MonkeyPatch):
    def interrupted(_path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jobs.commands.plan.load_job", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "job.yaml"])
    assert ended.value.code == 130


def test_a_missing_job_file_is_a_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["compose", str(tmp_path / "none.yaml")])
    assert ended.value.code == 2
    assert "does not exist" in capfd.readouterr().err


def test_an_output_that_commits_cannot_be_made_in_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    job = write_job(tmp_path / "job", [row()], output="ftp://host/out")
    with pytest.raises(SystemExit) as ended:
        main(["compose", str(job)])
    assert ended.value.code == 2
    assert "'ftp://host/out' is in a store that is not known" in capfd.readouterr().err


def test_the_command_runs_as_a_module_too(tmp_path: Path):
    """As on a cluster, which has the code and no ``clora``."""
    job = write_job(tmp_path / "job", [row(seed=-1)])
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "compose", str(job)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "seed" in done.stderr


@pytest.mark.parametrize(
    "name", ["validate", "plan", "catalog", "sweep", "report", "table", "show"]
)
def test_a_place_that_is_not_there_is_2_and_a_sentence(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
):
    missing = tmp_path / "missing"
    with pytest.raises(SystemExit) as ended:
        main([name, str(missing)])
    assert ended.value.code == 2
    assert str(missing) in capfd.readouterr().err


@pytest.mark.parametrize("module", ["jobs", "jobs.cli"])
def test_the_command_runs_by_the_name_of_its_module(module: str):
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True)
    assert (done.returncode, done.stdout[:11]) == (0, b"clora-batch")


def test_the_module_of_a_command_run_by_its_own_name_is_no_success():
    command = [sys.executable, "-m", "jobs.commands.compose", "job.yaml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "python -m jobs NAME" in done.stderr
