"""A Parquet file from outside may end the process that decodes it, and costs its own rows alone."""

import base64
import datetime
import decimal
import io
import json
import os
import random
import subprocess
import sys
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.loras.catalog import read_lora_catalog
from manifests.places.locations import LocationError
from manifests.tables import guarded_parquet
from manifests.tables.guarded_parquet import open_batches
from manifests.tables.parquet_child import stream_file
from manifests.tables.readers import RawRow, read_rows
from manifests.text.problems import Problem

# One column, one row, one bit flipped in the footer: asking Arrow 26 for the facts of the column
# throws a C++ exception where none is expected.
ABORTS = base64.b64decode(
    "UEFSMRUAFRwVHCwVAhUAFQYVBhwYCAEAAAAAAAAAGAgBAAAAAAAAABYAKAgBAAAAAAAAABgIAQAAAAAAAAAREQAAAAIA"
    "AAACAQEAAAAAAAAAFQQZLDUAGAZzY2hlbWEVAgAVBCQCGARzZWVkABYCGRwZHCYAHBUEGSUGABkYBHNlZWQVABYCFpoB"
    "FpoBJgg8GAgBAAAAAAAAABgIAQAAAAAAAAAWACgIAQAAAAAAAAAYCAEAAAAAAAAAEREAGRwVABUAFQIAPCkGGSYAAgAA"
    "ABaaARYCJggWmgEAKCBwYXJxdWV0LWNwcC1hcnJvdyB2ZXJzaW9uIDI2LjAuMRkcHAAAALIAAABQQVIx"
)
# Two batches and one process that aborts after the first.
DIES_LATER = """
import os, sys, pyarrow as pa
table = pa.table({"seed": [1, 2, 3]})
with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as stream:
    stream.write_table(table)
    sys.stdout.buffer.flush()
    os.abort()
"""


@pytest.fixture
def child_runs(monkeypatch):
    """Put a program in the place of the one that decodes the file."""

    def run(program: str) -> None:
        monkeypatch.setattr(guarded_parquet, "_command", lambda _: [sys.executable, "-c", program])

    return run


def only(path: Path) -> Problem:
    (problem,) = read_rows(str(path))
    assert isinstance(problem, Problem)
    return problem


def manifest(kind: int) -> bytes:
    rows = [{"prompt": f"a cat and dog {n}", "seed": n, "loras": ["cat", "dog"]} for n in range(9)]
    content = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows), content, compression=("snappy", "none", "zstd")[kind % 3],
        store_schema=kind % 2 == 0, row_group_size=5,
    )  # fmt: skip
    return content.getvalue()


def flipped(content: bytes, source: random.Random) -> bytes:
    """Return the file with a few bytes changed, most of them in the footer."""
    changed = bytearray(content)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for _ in range(source.randrange(1, 5)):
        place = source.randrange(footer if source.random() < 0.7 else 0, len(content))
        changed[place] ^= source.choice((1 << source.randrange(8), source.randrange(1, 256)))
    return bytes(changed)


def test_a_file_that_aborts_arrow_is_a_problem_and_its_neighbours_are_read(tmp_path):
    (tmp_path / "a.parquet").write_bytes(ABORTS)
    pq.write_table(pa.table({"seed": [7]}), tmp_path / "b.parquet")
    bad, good = read_rows(str(tmp_path))
    assert isinstance(bad, Problem)
    assert bad.problem == (
        f"{tmp_path}/a.parquet cannot be read: reading it ends the process (SIGABRT); it is "
        "damaged: write the file again"
    )
    assert isinstance(good, RawRow)
    assert good.values == {"seed": 7}
    catalog = read_lora_catalog(str(tmp_path / "a.parquet"))
    assert "a.parquet cannot be read: reading it ends" in str(catalog.problems[0])


def test_six_processes_that_read_a_bad_file_end_as_they_should(tmp_path):
    torn = tmp_path / "torn.parquet"
    content = manifest(0)
    torn.write_bytes(content[: len(content) // 2] + content[len(content) // 2 + 1 :])
    aborts = tmp_path / "aborts.parquet"
    aborts.write_bytes(ABORTS)
    program = (
        "import sys; from manifests.tables.readers import read_rows; "
        "print(sum('cannot be read' in str(row) for row in read_rows(sys.argv[1])))"
    )

    def end(path: Path) -> tuple[int, str, str]:
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(2) as workers:
        assert set(workers.map(end, [torn, aborts] * 3)) == {(0, "1\n", "")}


@pytest.mark.parametrize("count", [8, pytest.param(300, marks=pytest.mark.faults)])
def test_flipped_manifests_are_rows_or_problems_with_their_name(tmp_path, monkeypatch, count):
    monkeypatch.setattr(guarded_parquet, "PATIENCE_S", 30.0)
    bases = [manifest(kind) for kind in range(6)]

    def end(number: int) -> str:
        source = random.Random(f"f/{number}")  # number 38 aborts
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(flipped(source.choice(bases), source))
        rows = list(read_rows(str(path)))
        assert all(Path(row.place) == path for row in rows)
        problems = [row.problem for row in rows if isinstance(row, Problem)]
        assert not any("sent nothing" in text or "code 1" in text for text in problems), problems
        dead = any("ends the process" in text for text in problems)
        return "dead" if dead else "refused" if problems else "read"

    with ThreadPoolExecutor(2) as workers:
        ends = Counter(workers.map(end, range(count)))
    assert ends.total() == count
    assert min(ends["read"], ends["refused"]) > 0


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        ("import os; os.kill(os.getpid(), 11)", "ends the process (SIGSEGV); it is damaged"),
        ("import os; os.kill(os.getpid(), 9)", "was killed, as happens where memory runs out"),
        ("import os; os.kill(os.getpid(), 15)", "was ended from outside (SIGTERM); try again"),
        ("import os; os.kill(os.getpid(), 40)", "was ended from outside (signal 40)"),
        ("raise ValueError('x' * 999)", "ended with code 1 (ValueError: xxxx"),
        ("pass", "cannot be read: Tried reading schema message"),
        ("print('no Arrow stream')", "cannot be read: "),
        ("import time; time.sleep(60)", "sent nothing for 1 seconds"),
    ],
)
def test_how_a_child_ends_is_a_sentence(tmp_path, monkeypatch, child_runs, program, sentence):
    monkeypatch.setattr(guarded_parquet, "PATIENCE_S", 1.0 if "sleep" in program else 30.0)
    child_runs(program)
    (tmp_path / "m.parquet").touch()
    problem = only(tmp_path / "m.parquet").problem
    assert sentence in problem
    assert problem.startswith(f"{tmp_path}/m.parquet")
    assert len(problem) < 500


def test_rows_before_the_child_died_are_kept(tmp_path, child_runs):
    child_runs(DIES_LATER)
    (tmp_path / "m.parquet").touch()
    *rows, problem = read_rows(str(tmp_path / "m.parquet"))
    assert [dict(row.values) for row in rows if isinstance(row, RawRow)] == [
        {"seed": 1}, {"seed": 2}, {"seed": 3},
    ]  # fmt: skip
    assert "SIGABRT" in str(problem)


def test_rows_before_a_damaged_row_group_are_kept(tmp_path):
    content = io.BytesIO()
    pq.write_table(
        pa.table({"seed": range(8192)}), content, row_group_size=4096, compression="zstd",
        use_dictionary=False,
    )  # fmt: skip
    group = pq.ParquetFile(content).metadata.row_group(1).column(0)
    damaged = bytearray(content.getvalue())
    damaged[group.data_page_offset : group.data_page_offset + 8] = bytes(8)
    path = tmp_path / "m.parquet"
    path.write_bytes(damaged)
    *rows, problem = read_rows(str(path))
    assert [row.values["seed"] for row in rows if isinstance(row, RawRow)] == list(range(4096))
    assert "m.parquet cannot be read: " in str(problem)


def test_a_reader_that_stops_early_leaves_no_process(tmp_path, monkeypatch):
    children: list[subprocess.Popen[bytes]] = []

    class Watched(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            children.append(self)

    monkeypatch.setattr(subprocess, "Popen", Watched)
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"prompt": [f"{n}" * 99 for n in range(40_000)]}), path)
    rows = read_rows(str(path))
    next(rows)
    (child,) = children
    os.kill(child.pid, 0)  # at work
    rows.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)
    assert child.stdout is not None
    assert child.stdout.closed


def of_every_type(count: int) -> pa.Table:
    """Return a table whose texts repeat, differ, and change between batches and row groups."""
    numbers = range(count)
    day = datetime.datetime(2020, 1, 2, 3, 4, 5, 6)
    columns = {
        "text": pa.array([None if n % 7 == 0 else f"text {n}" for n in numbers]),
        "same": pa.array(["a cat"] * count, pa.large_string()),
        "few": pa.array([f"{n // 1000}" for n in numbers]).dictionary_encode(),
        "bytes": pa.array([bytes([n % 256]) for n in numbers]),
        "int": pa.array(numbers, pa.uint8() if count < 256 else pa.uint64()),
        "float": pa.array([n / 3 for n in numbers], pa.float32()),
        "bool": pa.array([n % 3 == 0 for n in numbers]),
        "null": pa.nulls(count),
        "date": pa.array([day.date()] * count),
        "when": pa.array([day + datetime.timedelta(n) for n in numbers], pa.timestamp("ns")),
        "utc": pa.array([day] * count, pa.timestamp("us", tz="UTC")),
        "time": pa.array([day.time()] * count),
        "span": pa.array([datetime.timedelta(seconds=n) for n in numbers], pa.duration("us")),
        "money": pa.array([decimal.Decimal(n) for n in numbers], pa.decimal128(10, 2)),
        "uuid": pa.array([uuid.UUID(int=n).bytes for n in numbers], pa.uuid()),
        "json": pa.array([json.dumps(n) for n in numbers], pa.json_()),
        "tensor": pa.FixedShapeTensorArray.from_storage(
            pa.fixed_shape_tensor(pa.int32(), [2]),
            pa.array([[n, 0] for n in numbers], pa.list_(pa.int32(), 2)),
        ),
        "list": pa.array([[f"{n}", None] * (n % 3) for n in numbers]),
        "large": pa.array([[n] for n in numbers], pa.large_list(pa.int64())),
        "fixed": pa.array([[0.5, None]] * count, pa.list_(pa.float64(), 2)),
        "struct": pa.array([{"lora": f"{n}", "notes": [{"a": n}]} for n in numbers]),
        "map": pa.array([[("steps", n)] for n in numbers], pa.map_(pa.string(), pa.int64())),
        "a.b": pa.array(["dots"] * count),
    }  # fmt: skip
    return pa.table(columns).replace_schema_metadata({"pandas": "{}"})


@pytest.mark.parametrize(("count", "rows_per_group"), [(0, 1), (60, 7), (9000, 5000)])
def test_rows_are_those_of_the_same_table_read_in_this_process(tmp_path, count, rows_per_group):
    path = tmp_path / "m.parquet"
    pq.write_table(of_every_type(count), path, row_group_size=rows_per_group)
    with open_batches(str(path)) as batches:
        names = batches.schema.names
        rows = [row for batch in batches for row in batch.to_pylist()]
    with pq.ParquetFile(path) as file:
        assert names == file.schema_arrow.names
        assert rows == file.read(use_threads=False).to_pylist()
    assert len(rows) == count


def test_a_text_is_sent_once_and_no_text_is_sent_in_vain(tmp_path):
    path = tmp_path / "m.parquet"
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * 40_000])
    differing = pa.array([f"{n:040}" for n in range(20_000)])
    for texts, num_bytes in ((once, 40_000), (differing, 40 * 20_000)):
        pq.write_table(pa.table({"prompt": texts}), path)
        stream = io.BytesIO()
        stream_file(str(path), stream)
        assert num_bytes < len(stream.getvalue()) < 2 * num_bytes + 8 * len(texts)


class Revived(pa.ExtensionType):
    """A type of this process; Ray has one whose values are unpickled when they are looked at."""

    def __init__(self):
        super().__init__(pa.binary(), "clora.test_revived")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        return cls()

    def __arrow_ext_scalar_class__(self):
        return RevivedScalar


class RevivedScalar(pa.ExtensionScalar):
    def as_py(self, **_):
        raise AssertionError("a value of the file was revived")


def test_types_of_this_process_are_not_used_for_a_file_that_names_them(tmp_path):
    kind = Revived()
    values = pa.ExtensionArray.from_storage(kind, pa.array([b"\x80"]))
    table = pa.table({
        "alone": values,
        "struct": pa.StructArray.from_arrays([values], ["a"]),
        "list": pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), values),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "m.parquet")
    pa.register_extension_type(kind)
    try:
        (row,) = read_rows(str(tmp_path / "m.parquet"))
    finally:
        pa.unregister_extension_type(kind.extension_name)
    assert isinstance(row, RawRow)
    assert row.values == {"alone": b"\x80", "struct": {"a": b"\x80"}, "list": [b"\x80"]}


def test_texts_that_are_not_utf_8_cost_their_row_alone(tmp_path):
    texts = pa.array([b"a", b"\xff", b"b"]).view(pa.string())
    for column in (texts, pa.StructArray.from_arrays([texts], ["a"]), pa.ListArray.from_arrays(
        pa.array([0, 1, 2, 3], pa.int32()), texts,
    )):  # fmt: skip
        pq.write_table(pa.table({"x": column}), tmp_path / "m.parquet")
        first, bad, last = read_rows(str(tmp_path / "m.parquet"))
        assert isinstance(bad, Problem)
        assert bad.problem == "holds text that is not UTF-8"
        assert (first.line, bad.line, last.line) == (1, 2, 3)


def test_two_columns_of_one_name_are_a_problem(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["seed", "seed"])
    pq.write_table(table, tmp_path / "m.parquet")
    problem = only(tmp_path / "m.parquet")
    assert (problem.field, problem.problem) == (
        "seed",
        "is the name of two columns; names are unique",
    )


def test_modules_in_the_current_folder_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("json", "pyarrow", "manifests"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was run')")
    pq.write_table(pa.table({"seed": [7]}), tmp_path / "m.parquet")
    (row,) = read_rows(str(tmp_path / "m.parquet"))
    assert isinstance(row, RawRow)


def test_a_process_that_cannot_be_started_is_a_sentence(monkeypatch):
    with pytest.raises(LocationError, match="cannot be read: "), open_batches("/data/\0.parquet"):
        pass
    monkeypatch.setattr(guarded_parquet, "_command", lambda _: ["/no/such/program"])
    missing = pytest.raises(LocationError, match=r"m.parquet' cannot be read: .*No such file")
    with missing, open_batches("/data/m.parquet"):
        pass
