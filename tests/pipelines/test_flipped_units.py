"""One flipped bit of a committed unit never ends a process, and is never passed on unseen."""

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from engine_kit import BAD_ROW, commit, row, rows
from flip_reader import BEGUN

from pipelines.ledger.asked_rows import write_asked
from pipelines.ledger.run_record import RunRecord, write_run_record
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.committed_unit import rows_name
from pipelines.units.output_files import open_parquet, read_table
from pipelines.units.schemas import ROWS

TESTS = Path(__file__).parents[1]
UNIT = rows_name("u1")
FEW, MANY = 15, 300
DEADLINE_S = 600.0
ABORTED = (-6, 134)


@pytest.fixture
def output(tmp_path: Path) -> LocalStorage:
    """Two units, the first with a failed row and without image files, so that its copies count."""
    storage = LocalStorage(tmp_path / "out")
    manifest = [row(0), row(1), row(2, prompt=BAD_ROW), *rows(5)[3:]]
    commit(storage, "u1", manifest[:3])
    commit(storage, "u2", manifest[3:])
    for one in manifest[:2]:
        storage.delete(image_name(one.key))
    record = RunRecord(
        run_id="run-1",
        started_at="2030-01-02T03:04:05+00:00",
        num_rows=len(manifest),
        manifest=write_asked(storage, manifest),
        job={"base_model": "fake"},
        digests={"base_model": manifest[0].base_model_digest, "dino": None},
        state="finished",
    )
    write_run_record(storage, record)
    return storage


def last_byte_of(content: bytes | bytearray, column: str) -> int:
    """Return where the last value of a column stands, one that its page's checksum covers."""
    group = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0)
    chunks = [group.column(index) for index in range(group.num_columns)]
    (chunk,) = (chunk for chunk in chunks if chunk.path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    return start + chunk.total_compressed_size - 1


def as_of_earlier_releases(storage: LocalStorage) -> None:
    """Write the units again as they were before they had checksums."""
    for name in storage.list("rows", ".parquet"):
        with open_parquet(storage, name) as file:
            footer = json.loads(file.metadata.metadata[b"clora.unit"])
        table = read_table(storage, name).cast(ROWS)
        del footer["image_sizes"]
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, ROWS, compression="zstd", compression_level=1) as writer:
            writer.write_table(table, row_group_size=100)
            writer.add_key_value_metadata({b"clora.unit": json.dumps(footer).encode()})
        storage.put(name, sink.getvalue())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}


def read_with(
    storage: LocalStorage, bits: Sequence[int], *, is_checked: bool
) -> tuple[list[dict[str, Any]], list[int]]:
    """Return what processes said of the unit with each bit flipped, and the bits that ended one."""
    said: list[dict[str, Any]] = []
    fatal: list[int] = []
    content = storage.read(UNIT)
    while bits:
        asked = {"output": storage.uri, "unit": UNIT, "bits": bits, "is_checked": is_checked}
        child = subprocess.run(
            [sys.executable, "-m", "flip_reader", json.dumps(asked)],
            env=environment(), capture_output=True, text=True, timeout=DEADLINE_S,
        )  # fmt: skip
        storage.put(UNIT, content)
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        said += [line for line in lines if BEGUN not in line]
        if child.returncode == 0:
            break
        assert lines, child.stderr
        last = [line[BEGUN] for line in lines if BEGUN in line][-1]
        assert child.returncode in ABORTED, f"bit {last}: {child.stderr}"
        fatal.append(last)
        bits = bits[bits.index(last) + 1 :]
    return said, fatal


def some_bits(content: bytes, count: int) -> list[int]:
    """Return bits all over the file, and some of a failure's names and of the footer's length."""
    num_bits = 8 * len(content)
    chosen = random.Random(count)
    names = 8 * content.index(b'"errors": [{')
    return sorted(
        {
            *chosen.sample(range(num_bits), count),
            *chosen.sample(range(names, names + 8 * 500), count // 4),
            *chosen.sample(range(num_bits - 64, num_bits - 32), min(count // 8, 32)),
        }
    )


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.faults)])
def test_a_flipped_bit_of_a_unit_is_named_or_changes_nothing(output: LocalStorage, count: int):
    bits = some_bits(output.read(UNIT), count)
    said, fatal = read_with(output, bits, is_checked=True)
    assert fatal == []
    assert [line for line in said if line["problems"]] == []
    assert len(said) == len(bits)
    # Else the bits are no test: a few are of what nothing reads.
    assert sum(line["is_named"] for line in said) > len(bits) / 2


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.faults)])
def test_a_flipped_bit_of_a_unit_of_an_earlier_release_passes_on_no_wrong_image(
    output: LocalStorage, count: int
):
    as_of_earlier_releases(output)
    bits = some_bits(output.read(UNIT), count)
    said, fatal = read_with(output, bits, is_checked=False)
    assert fatal == []
    assert [line for line in said if line["problems"]] == []
    assert len(said) == len(bits)


def test_readers_that_know_parquet_and_nothing_of_this_product_read_units(
    output: LocalStorage, tmp_path: Path
):
    """Between pages and footer lies a digest, in a gap that no offset points into."""
    paths = [Path(output.uri) / name for name in output.list("rows", ".parquet")]
    keys = {row(index).key for index in (0, 1, 3, 4)}
    for path in paths:
        content = path.read_bytes()
        footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
        assert content[:4] == content[-4:] == b"PAR1"
        metadata = pq.read_metadata(path)
        columns = [metadata.row_group(0).column(n) for n in range(metadata.num_columns)]
        ends = [
            (column.dictionary_page_offset or column.data_page_offset)
            + column.total_compressed_size
            for column in columns
        ]
        assert max(ends) <= footer - len(b"clora-footer-sha256:") - 32
        assert pq.read_table(path).num_rows == metadata.num_rows
    assert set(pads.dataset(paths).to_table(columns=["key"])["key"].to_pylist()) == keys
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(
        "parquet", data_files=[str(path) for path in paths], split="train", cache_dir=tmp_path / "c"
    )
    assert set(loaded["key"]) == keys
    assert [image.size for image in loaded["image"]] == [(8, 8)] * len(keys)


def once(command: str) -> list[object]:
    return [(command, 1), pytest.param(command, 10, marks=pytest.mark.faults)]


@pytest.mark.parametrize(
    ("command", "times"),
    [
        *(each for command in ("table",) for each in once(command)),
        *(
            pytest.param(command, 10, marks=pytest.mark.faults)
            for command in ("status", "verify", "export")
        ),
        pytest.param("report", 10, marks=pytest.mark.faults),
    ],
)
def test_a_process_that_read_a_damaged_unit_ends_with_its_own_exit_code(
    output: LocalStorage, tmp_path: Path, command: str, times: int
):
    content = bytearray(output.read(UNIT))
    content[last_byte_of(content, "seconds")] ^= 1
    output.put(UNIT, bytes(content))
    more = ["--webdataset", str(tmp_path / "shards")] if command == "export" else []
    for _ in range(times):
        ended = subprocess.run(
            [sys.executable, "-m", "jobs", command, output.uri, *more],
            env=environment(), capture_output=True, text=True,
        )  # fmt: skip
        assert ended.returncode == 1, ended.stderr
        assert UNIT in ended.stderr
