from pathlib import Path

import pytest

from benchmarks import kills, planning
from benchmarks.planning_process import units_digest


def test_planning_is_measured_with_and_without_an_index(capsys: pytest.CaptureFixture[str]):
    planning.main(["--parts", "committed", "--rows", "600", "--rows-per-unit", "4"])
    rows = [
        [cell.strip() for cell in line.split("|")]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("| 600 |")
    ]
    assert [(row[2], row[3], row[7]) for row in rows[:3]] == [
        ("0", "", "150"),
        ("540", "none", "15"),
        ("540", "written", "15"),
    ]


def test_a_digest_of_units_knows_their_keys_and_not_their_order():
    units = [("u", ["a", "b"]), ("v", ["c"])]
    assert units_digest(units) == units_digest(reversed(units))
    others = [
        [("u", ["b", "a"]), ("v", ["c"])],
        [("u", ["a"]), ("v", ["b", "c"])],
        [("u", ["a", "b"]), ("v", ["c"]), ("v", ["c"])],
    ]
    assert units_digest(units) not in map(units_digest, others)


def test_files_of_an_output_are_counted_by_folder(tmp_path: Path):
    for name in ("plans/run/images.json", "plans/run/.part", "leases/epoch-1.json"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert kills.left_in(tmp_path) == "leases 1, plans 1, plans (hidden) 1"
