import io
import json
from pathlib import Path

from engine_kit import BAD_ROW, NOW, commit, row

from jobs.console.json_progress import JsonProgress
from pipelines.storage.local import LocalStorage
from pipelines.units.receipts import Phase


def test_every_line_is_an_object_with_the_run_and_units_have_their_id(tmp_path: Path):
    stream = io.StringIO()
    receipt = commit(LocalStorage(tmp_path), "u1", [row(0), row(1, prompt=BAD_ROW)])
    progress = JsonProgress(stream, "run-7", now=lambda: NOW)
    progress.begin(Phase.IMAGES, 3)
    progress.stored(receipt)
    progress.note("two lines\nof a sentence")
    begin, unit, note = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["run"] for line in (begin, unit, note)} == {"run-7"}
    assert {line["time"] for line in (begin, unit, note)} == {"2030-01-02T03:04:05.000+00:00"}
    assert (begin["event"], begin["phase"], begin["rows"]) == ("begin", "images", 3)
    assert (unit["unit"], unit["made"], unit["failed"]) == ("u1", 1, 1)
    assert (unit["rows_done"], unit["rows"]) == (2, 3)
    assert unit["failed_by_stage"] == {"prompt": 1}
    assert note["text"] == "two lines\nof a sentence"


def test_a_unit_s_line_has_no_prompt_row_or_lora(tmp_path: Path):
    stream = io.StringIO()
    one = row(0)
    JsonProgress(stream, "r").stored(commit(LocalStorage(tmp_path), "u1", [one]))
    for text in (one.prompt, one.row_id, one.key, one.loras[0].digest):
        assert text not in stream.getvalue()
