"""Tables in a spool come back as they were, from memory and from disk."""

import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from manifests.tables.spool import Spool, SpoolError

SCHEMA = pa.schema([("number", pa.int64()), ("text", pa.string())])
parts = st.lists(st.lists(st.tuples(st.integers(0, 9), st.text(max_size=3)), max_size=5))


@settings(deadline=None)
@given(parts, st.sampled_from([0, 100, 10**9]))
def test_each_partition_holds_its_rows_in_the_order_they_were_added(
    tables: list[list[tuple[int, str]]], max_held_bytes: int
):
    spool = Spool(SCHEMA, 3, max_held_bytes=max_held_bytes)
    for rows in tables:
        table = pa.table(
            {"number": [number for number, _ in rows], "text": [text for _, text in rows]},
            schema=SCHEMA,
        )
        spool.add(table, np.array([number % 3 for number, _ in rows], np.int64))
    everything = [row for rows in tables for row in rows]
    for partition in range(3):
        found = spool.partition(partition).to_pylist()
        expected = [row for row in everything if row[0] % 3 == partition]
        assert [(row["number"], row["text"]) for row in found] == expected
    assert spool.num_rows == len(everything)


def test_a_full_disk_is_a_sentence_with_the_folder_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
):
    full = Path("/dev/full").open("w+b", buffering=0)  # noqa: SIM115 - the spool closes it
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: full)
    spool = Spool(SCHEMA, max_held_bytes=0)
    with pytest.raises(SpoolError, match=r"do not fit .*: No space left on device; make room"):
        spool.add(pa.table({"number": [1], "text": ["a"]}, schema=SCHEMA))


def test_a_disk_that_takes_a_part_of_what_is_written_is_given_the_rest(
    monkeypatch: pytest.MonkeyPatch,
):
    whole = tempfile.TemporaryFile("w+b", buffering=0)  # noqa: SIM115 - the spool closes it

    class Slow:
        """Takes seven bytes at a time, as a disk may that is almost full."""

        def write(self, content: memoryview) -> int:
            return whole.write(content[:7])

        def fileno(self) -> int:
            return whole.fileno()

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_, **__: Slow())
    spool = Spool(SCHEMA, 2, max_held_bytes=0)
    tables = [pa.table({"number": [n, n], "text": ["a", "b"]}, schema=SCHEMA) for n in range(5)]
    for table in tables:
        spool.add(table, np.array([0, 1], np.int64))
    assert spool.partition(1)["number"].to_pylist() == [0, 1, 2, 3, 4]
    assert spool.partition(1)["text"].to_pylist() == ["b"] * 5
