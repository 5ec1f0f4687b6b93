"""Publishing: one edition after another, whoever else publishes."""

import itertools
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from engine_kit import row, rows

from pipelines.outputs.edition import EDITION, compare, edition_table, read_edition
from pipelines.outputs.editions import (
    LATEST,
    Published,
    edition_name,
    newest_edition,
    publish_edition,
)
from pipelines.storage.local import LocalStorage


@pytest.fixture
def output(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "out")


def table(*changed: Any, count: int = 3) -> pa.Table:
    listed = [*rows(count), *changed]
    by_id = {one.row_id: one for one in listed}
    return edition_table(by_id.values(), {one.key: f"sha-{one.seed}" for one in by_id.values()})


def publish(output: LocalStorage, edition: pa.Table, **changes: Any) -> Published:
    values: dict[str, Any] = {
        "read_at": "2030-01-01",
        "run_id": "r",
        "num_missing": 0,
        "keep": 2,
        "note": print,
    }
    return publish_edition(output, edition, **(values | changes))


def latest(output: LocalStorage) -> dict[str, Any]:
    return json.loads(output.read(LATEST))


def test_an_edition_is_its_rows_with_an_image_in_order_of_name():
    listed = [row(2), row(0), row(1)]
    edition = edition_table(listed, {listed[0].key: "a", listed[1].key: "b"})
    assert edition.schema == EDITION
    assert edition["row_id"].to_pylist() == ["row-0", "row-2"]
    assert edition["image_sha256"].to_pylist() == ["b", "a"]
    assert edition["image"][0].as_py() == f"images/{listed[1].key[:2]}/{listed[1].key}.png"


def test_a_process_that_ends_just_after_it_read_an_edition_ends_well(output: LocalStorage):
    # pyarrow's own read_table aborts many of these processes.
    publish(output, table(count=200))
    script = (
        "import sys; from pipelines.storage.storage import open_storage; "
        "from pipelines.outputs.edition import read_edition; "
        "rows, facts = read_edition(open_storage(sys.argv[1]), sys.argv[2]); print(len(rows))"
    )
    command = [sys.executable, "-c", script, output.uri, edition_name(1)]
    for _ in range(12):
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr


def test_changes_are_those_of_sets_of_names_and_keys():
    changes = compare(table(row(1, prompt="another"), row(7)), table(row(8)))
    assert changes.added == ("row-7",)
    assert changes.changed == ("row-1",)
    assert changes.removed == ("row-8",)
    assert str(changes) == "1 added, 1 changed, 1 removed"
    assert compare(table(), None).added == ("row-0", "row-1", "row-2")


def test_latest_names_the_edition_and_the_former_one_still_reads(output: LocalStorage):
    first, second = table(), table(row(1, prompt="another"))
    publish(output, first)
    published = publish(output, second)
    assert (published.outcome, published.number) == ("published", 2)
    told = latest(output)
    assert (told["number"], told["num_changed"], told["rows"]) == (2, 1, edition_name(2))
    for number, rows_then in ((1, first), (2, second)):
        found, facts = read_edition(output, edition_name(number))
        assert found.to_pylist() == rows_then.to_pylist()
        assert facts.number == number


def test_the_same_rows_publish_nothing_and_touch_nothing(output: LocalStorage, tmp_path: Path):
    publish(output, table())
    before = (tmp_path / "out" / LATEST).stat().st_mtime_ns
    assert publish(output, table(), read_at="2031-01-01").outcome == "unchanged"
    assert (tmp_path / "out" / LATEST).stat().st_mtime_ns == before
    assert output.list("editions", ".parquet") == [edition_name(1)]


def test_rows_that_were_read_earlier_than_the_latest_s_are_not_published(output: LocalStorage):
    publish(output, table(row(1, prompt="new")), read_at="2030-01-02")
    published = publish(output, table(), read_at="2030-01-01")
    assert (published.outcome, published.number) == ("outdated", 1)
    assert latest(output)["num_rows"] == 3
    assert output.list("editions", ".parquet") == [edition_name(1)]


def test_going_back_to_former_rows_is_an_edition_again(output: LocalStorage):
    for prompt in ("one", "two", "one"):
        publish(output, table(row(1, prompt=prompt)))
    assert latest(output)["number"] == 3


def test_old_editions_go_and_as_many_as_asked_for_stay(output: LocalStorage):
    dropped = [publish(output, table(count=n), keep=2).dropped for n in range(1, 6)]
    assert dropped == [(), (), (), (1,), (2,)]
    assert output.list("editions", ".parquet") == [edition_name(n) for n in (3, 4, 5)]


def test_a_latest_that_a_crash_left_behind_is_put_right(output: LocalStorage):
    publish(output, table())
    first = output.read(LATEST)
    publish(output, table(row(1, prompt="another")))
    output.put(LATEST, first)
    assert publish(output, table(row(1, prompt="another"))).outcome == "unchanged"
    assert latest(output)["number"] == 2


def test_of_many_that_publish_at_once_each_edition_is_one_s_and_latest_is_the_last(
    output: LocalStorage,
):
    """Threads with the same and with different rows; numbers have no gap and no edition is lost."""
    editions = [table(row(1, prompt=f"prompt {n % 4}")) for n in range(16)]
    results: list[Published] = []
    barrier = threading.Barrier(len(editions))

    def run(edition: pa.Table) -> None:
        barrier.wait()
        results.append(publish(output, edition, keep=100))

    threads = [threading.Thread(target=run, args=(edition,)) for edition in editions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = sorted(result.number for result in results if result.outcome == "published")
    names = output.list("editions", ".parquet")
    assert len(results) == len(editions)
    assert names == [edition_name(number) for number in numbers]
    assert numbers == list(range(1, len(numbers) + 1))
    newest = newest_edition(output, note=print)
    assert newest is not None
    assert latest(output)["number"] == newest[1].number == numbers[-1]
    digests = [read_edition(output, name)[1].digest for name in names]
    assert all(one != other for one, other in itertools.pairwise(digests))


def test_a_damaged_edition_is_named_and_followed_by_a_whole_one(output: LocalStorage):
    publish(output, table())
    publish(output, table(row(1, prompt="another")))
    output.put(edition_name(2), output.read(edition_name(2))[:-10])
    notes: list[str] = []
    published = publish(output, table(row(1, prompt="another")), note=notes.append)
    assert (published.outcome, published.number) == ("published", 3)
    assert published.changes.changed == ("row-1",), "compared with the newest that can be read"
    assert latest(output)["number"] == 3
    (note,) = notes
    assert f"{output.uri}/{edition_name(2)} is damaged: it cannot be read (cut off" in note


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"number": "x"}', b"\xff"])
def test_a_damaged_latest_is_written_again(output: LocalStorage, content: bytes):
    publish(output, table())
    output.put(LATEST, content)
    assert publish(output, table()).outcome == "unchanged"
    assert latest(output)["number"] == 1


def test_a_file_that_is_not_called_like_an_edition_is_left_alone(output: LocalStorage):
    output.put("editions/notes.parquet", b"mine")
    assert publish(output, table()).number == 1
    assert publish(output, table(count=2), keep=0).dropped == (1,)
    assert output.read("editions/notes.parquet") == b"mine"
