import io
import sys
from pathlib import Path

import pytest
from engine_kit import BAD_ROW, commit, row, rows
from hypothesis import given
from hypothesis import strategies as st

from jobs.console.copying import counted
from jobs.console.progress import BarProgress, LineProgress, duration, open_progress
from pipelines.storage.local import LocalStorage
from pipelines.units.receipts import Phase, Receipt


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def unit(tmp_path: Path) -> Receipt:
    """Four rows, one of them failed."""
    return commit(LocalStorage(tmp_path), "u", [*rows(3), row(3, prompt=BAD_ROW)])


def lines_of(unit: Receipt, *, num_units: int, seconds_each: float, num_rows: int) -> list[str]:
    stream, clock = io.StringIO(), Clock()
    progress = LineProgress(stream, clock)
    progress.begin(Phase.IMAGES, num_rows)
    for _ in range(num_units):
        clock.now_s += seconds_each
        progress.stored(unit)
    return stream.getvalue().splitlines()


def test_a_line_tells_rows_failures_rate_and_time_left(unit: Receipt):
    assert lines_of(unit, num_units=1, seconds_each=8.0, num_rows=12) == [
        "images 0/12",
        "images 4/12, 1 failed, 0.5 rows/s, 16 s left",
    ]


def test_the_last_line_has_no_time_left(unit: Receipt):
    lines = lines_of(unit, num_units=2, seconds_each=8.0, num_rows=8)
    assert lines[-1] == "images 8/8, 2 failed, 0.5 rows/s"


def test_a_long_run_says_a_line_each_half_minute_and_a_quick_one_ten(unit: Receipt):
    slow = lines_of(unit, num_units=100, seconds_each=10.0, num_rows=1_000_000)
    assert len(slow) == 1 + 100 // 3
    quick = lines_of(unit, num_units=250, seconds_each=0.01, num_rows=1000)
    assert len(quick) == 1 + 10


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_lines_and_a_terminal_a_bar():
    with open_progress(io.StringIO()) as progress:
        assert isinstance(progress, LineProgress)
    with open_progress(Terminal()) as progress:
        assert isinstance(progress, BarProgress)


def test_the_bar_counts_what_it_is_told_and_prints_notes_as_they_are(unit: Receipt):
    stream = Terminal()
    with open_progress(stream) as progress:
        progress.begin(Phase.REFERENCES, 8)
        progress.stored(unit)
        progress.stored(unit)
        progress.note("a [bold]note[/bold]")
    told = stream.getvalue()
    assert "references" in told
    assert "8/8 2 failed" in told
    assert "a [bold]note[/bold]" in told


def test_progress_of_a_copy_goes_to_the_standard_error_of_the_moment(
    monkeypatch: pytest.MonkeyPatch,
):
    moment = io.StringIO()
    monkeypatch.setattr(sys, "stderr", moment)
    now = iter([0.0, 40.0, 40.0])
    with counted("layers", clock=lambda: next(now)) as progress:
        progress(5, 10)
    assert moment.getvalue() == "layers 5/10\n"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (12_000, "3 h 20 min"),
     (260_000, "3.0 days")],
)  # fmt: skip
def test_durations_read_as_people_say_them(seconds: float, told: str):
    assert duration(seconds) == told


@given(st.floats(0, 1e9))
def test_any_duration_is_short(seconds: float):
    assert len(duration(seconds)) < 20
