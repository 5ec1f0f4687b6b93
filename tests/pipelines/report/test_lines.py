import json
import random
from typing import Any

from evaluation_kit import FIXTURE, result_row, table

from pipelines.evaluation.results import read_results
from pipelines.report.lines import report_arms, report_lines
from pipelines.report.page import index_script
from pipelines.report.write import ordered_keys


def error(key: str, method: str, **changes: Any) -> dict[str, Any]:
    values = {
        "key": key, "row_id": key, "prompt": "p1", "loras": ["a", "b"], "seed": 0,
        "method": method, "stage": "generate", "error": "E", "message": "no", "attempt": 1,
    }  # fmt: skip
    return values | changes


def test_a_line_holds_what_all_methods_made_of_one_prompt_set_and_seed():
    lines = report_lines(read_results(table(FIXTURE)), [], ["clora", "merge"])
    shown = [(line.prompt, line.seed, sorted(line.cells)) for line in lines]
    assert shown == [
        ("p1", 0, ["clora", "merge"]),
        ("p1", 1, ["clora", "merge"]),
        ("p1", 7, ["merge"]),
        ("p2", 0, ["clora", "merge"]),
    ]
    assert lines[0].cells["clora"].score == 0.5


def test_every_image_and_failure_has_one_cell_and_one_number():
    failures = [error("f1", "switch"), error("f2", "clora", seed=3), error("f3", "clora", seed=3)]
    results = read_results(table(FIXTURE))
    arms = report_arms(["clora", "merge"], results, failures)
    assert arms == ["clora", "merge", "switch"]
    shuffled = list(results)
    random.Random(1).shuffle(shuffled)
    lines = report_lines(shuffled, failures, arms)
    keys = ordered_keys(lines, arms)
    assert sorted(keys) == sorted([*(f"k{n}" for n in range(1, 8)), "f1", "f2", "f3"])
    assert keys == ordered_keys(report_lines(results, failures, arms), arms)
    (failed,) = [line for line in lines if "switch" in line.cells]
    assert failed.cells["switch"].reason == "generate, E: no"
    assert set(failed.cells) == {"clora", "merge", "switch"}


def test_a_failure_stands_in_the_arm_of_its_method_that_is_free():
    other = '{"num_steps": 50}'
    rows = [*FIXTURE, result_row("k8", "clora", 0, {"a": 1, "b": 1}, sampler_json=other)]
    results = read_results(table(rows))
    arms = report_arms(sorted({result.arm for result in results}), results, [])
    (line,) = [
        line
        for line in report_lines(results, [error("f", "merge", seed=1)], arms)
        if any(cell.key == "f" for cell in line.cells.values())
    ]
    assert line.prompt == "p1"
    assert arms == ["clora (num_steps 30)", "clora (num_steps 50)", "merge (num_steps 30)"]
    # Its own line, for the line of seed 1 has an image in the only arm of that method.
    assert list(line.cells) == ["merge (num_steps 30)"]


def test_a_seed_that_a_browser_would_round_reaches_it_as_text():
    for seed, written in ((2**53 - 1, 2**53 - 1), (2**63 - 1, str(2**63 - 1))):
        lines = report_lines([], [error("f", "clora", seed=seed)], ["clora"])
        script = index_script(lines, ["clora"], None)
        assert json.loads(script.partition("(")[2].rpartition(")")[0])["lines"][0][2] == written
