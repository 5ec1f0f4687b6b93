"""The door to an output's files: what was written is read, and what is not is named."""

import errno
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from engine_kit import commit, rows
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ledger.ledger import survey
from pipelines.storage.error import StorageError
from pipelines.storage.local import LocalStorage
from pipelines.units.output_files import (
    DamagedFileError,
    encode_json,
    encode_parquet,
    open_parquet,
    read_json,
    read_table,
)

NAME = "rows/a.parquet"
TABLE = pa.table({"key": [f"key {n}" for n in range(40)], "number": list(range(40))})
WRITTEN = encode_parquet(NAME, [TABLE], TABLE.schema, metadata={b"mine": b"kept"})


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    return LocalStorage(tmp_path_factory.mktemp("files") / "out")


def read_back(disk: LocalStorage, content: bytes) -> pa.Table:
    (Path(disk.uri) / "rows").mkdir(parents=True, exist_ok=True)
    (Path(disk.uri) / NAME).write_bytes(content)
    return read_table(disk, NAME)


def test_what_is_written_is_read_here_and_by_readers_that_know_nothing_of_it(disk: LocalStorage):
    assert read_back(disk, WRITTEN).equals(TABLE)
    assert pq.read_table(io.BytesIO(WRITTEN)).equals(TABLE)
    with open_parquet(disk, NAME) as file:
        assert (file.metadata.metadata or {})[b"mine"] == b"kept"


@given(data=st.data())
def test_every_flipped_bit_is_named_or_changes_no_value(disk: LocalStorage, data: st.DataObject):
    place = data.draw(st.integers(0, len(WRITTEN) - 1), label="byte")
    content = bytearray(WRITTEN)
    content[place] ^= 1 << data.draw(st.integers(0, 7), label="bit")
    said = ""
    try:
        assert read_back(disk, bytes(content)).equals(TABLE)
    except DamagedFileError as error:
        said = str(error)
    assert not said or f"{disk.uri}/{NAME} is damaged: it cannot be read (" in said
    assert not said or f"`clora verify {disk.uri} --repair`" in said


@given(length=st.integers(0, len(WRITTEN) - 1))
def test_a_file_that_is_cut_off_anywhere_is_named(disk: LocalStorage, length: int):
    with pytest.raises(DamagedFileError):
        read_back(disk, WRITTEN[:length])


def test_the_content_of_another_file_is_named(disk: LocalStorage):
    disk.put("rows/b.parquet", WRITTEN)
    with pytest.raises(DamagedFileError, match=r"rows/b\.parquet .*the content of rows/a\.parquet"):
        read_table(disk, "rows/b.parquet")


def test_a_file_of_an_earlier_release_is_read_without_its_digest(disk: LocalStorage):
    sink = io.BytesIO()
    pq.write_table(TABLE, sink)
    assert read_back(disk, sink.getvalue()).equals(TABLE)


def test_a_table_without_rows_has_its_columns(disk: LocalStorage):
    name = "plans/none.parquet"
    disk.put(name, encode_parquet(name, [], TABLE.schema))
    assert read_table(disk, name, ["number"]).equals(TABLE.select(["number"]).slice(0, 0))


VALUES = {"run_id": "r", "number": 3, "text": "\u00fc \U0001f600", "nested": {"b": [1.5, None]}}


def test_a_json_object_is_read_as_it_was_written(disk: LocalStorage):
    disk.put("runs/a.json", encode_json(VALUES))
    assert read_json(disk, "runs/a.json", dict) == VALUES
    disk.put("runs/old.json", json.dumps(VALUES).encode())
    assert read_json(disk, "runs/old.json", dict) == VALUES


@given(data=st.data())
def test_every_flipped_bit_of_a_json_object_is_named_or_changes_no_value(
    disk: LocalStorage, data: st.DataObject
):
    content = bytearray(encode_json(VALUES))
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (Path(disk.uri) / "runs").mkdir(parents=True, exist_ok=True)
    (Path(disk.uri) / "runs/b.json").write_bytes(content)
    with suppress(DamagedFileError):
        # If the digest has another name it is one more value, and readers look at names.
        values = read_json(disk, "runs/b.json", dict)
        assert {name: values.get(name) for name in VALUES} == VALUES


NO_OBJECTS = [b"", b"[]", b"null", b"{", b"\xff", b"[" * 100_000, b'{"a": 1']


@pytest.mark.parametrize("content", NO_OBJECTS)
def test_what_is_no_json_object_is_named(disk: LocalStorage, content: bytes):
    disk.put("runs/c.json", content)
    with pytest.raises(DamagedFileError, match=r"runs/c\.json is damaged"):
        read_json(disk, "runs/c.json", dict)


class Loaded(pa.ExtensionType):
    """A type that does something when a file names it, as Ray's does."""

    def __init__(self) -> None:
        super().__init__(pa.binary(), "tests.loaded")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, serialized: bytes) -> "Loaded":
        return cls()


@pytest.mark.parametrize("nest", [lambda kind: kind, lambda kind: pa.list_(pa.field("x", kind))])
def test_a_type_that_a_program_registered_is_not_read(disk: LocalStorage, nest: Any):
    pa.register_extension_type(Loaded())
    try:
        schema = pa.schema([("image", nest(Loaded()))])
        disk.put("rows/d.parquet", encode_parquet("rows/d.parquet", [], schema))
        with pytest.raises(DamagedFileError, match=r"d\.parquet .*column \w+ has the type"):
            read_table(disk, "rows/d.parquet")
    finally:
        pa.unregister_extension_type("tests.loaded")


def test_a_missing_file_is_no_damage(disk: LocalStorage):
    with pytest.raises(FileNotFoundError):
        read_table(disk, "rows/none.parquet")
    with pytest.raises(FileNotFoundError):
        read_json(disk, "runs/none.json", dict)


def test_a_disk_that_cannot_read_now_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Or a repair would set whole files aside while a share is away."""
    disk = LocalStorage(tmp_path)
    commit(disk, "u1", rows(3))

    class Failing(io.FileIO):
        num_reads = 0

        def readall(self) -> bytes:
            return self.read(1 << 30)

        def read(self, size: int = -1) -> bytes:
            self.num_reads += 1
            if self.num_reads > 4:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    real_open = Path.open

    @contextmanager
    def failing(path: Path) -> Iterator[io.FileIO]:
        with Failing(path) as file:
            yield file

    def opened(path: Path, mode: str = "r", *rest: object) -> object:
        return failing(path) if mode == "rb" else real_open(path, mode, *rest)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(StorageError, match=r"unit-u1\.parquet cannot be read \(Input/output"):
        survey(disk)
