"""Tables that outgrow memory, kept in a file without a name.

A manifest of ten million rows is some gigabytes, and what is done to it (find equal keys, sort)
needs all of its rows. So rows are dealt into partitions, and one partition at a time is read back.
The file has no name, so nothing of it is left when the process ends, however it ends.
"""

import errno
import itertools
import os
import tempfile
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from clora_core.recipe.errors import CloraError
from manifests.tables.arrays import compacted, one_chunk

MAX_HELD_BYTES = 8 * 1024**2
"""Of tables in memory before they are written; a small manifest is never written."""

MIN_PIECE_BYTES = 64 * 1024
"""Of a partition that are written at once, on average; a piece costs as much to write as some
thousand rows."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpoolError(CloraError):
    """The folder for temporary files cannot hold what is kept there; the message names it."""

    exit_code = 1


class Spool:
    """Tables of one schema, each row in one of some partitions.

    Args:
        schema: Of all tables.
        num_partitions: How many there are.
        max_held_bytes: What is held in memory; ``MAX_HELD_BYTES`` or more if None.
        what: The rows, as the beginning of a sentence.
    """

    def __init__(
        self,
        schema: pa.Schema,
        num_partitions: int = 1,
        *,
        max_held_bytes: int | None = None,
        what: str = "the rows of the manifest",
    ) -> None:
        self.schema = schema
        self.num_partitions = num_partitions
        self.num_rows = 0
        usual = max(MAX_HELD_BYTES, num_partitions * MIN_PIECE_BYTES)
        self._max_held_bytes = usual if max_held_bytes is None else max_held_bytes
        self._what = what
        self._held: list[list[pa.Table]] = [[] for _ in range(num_partitions)]
        self._held_bytes = 0
        self._written: list[list[tuple[int, int]]] = [[] for _ in range(num_partitions)]
        self._file = None
        self._end = 0

    def add(self, table: pa.Table, numbers: np.ndarray | None = None) -> None:
        """Add rows, which stay in the order that they are added in.

        Args:
            table: Of the spool's schema.
            numbers: The partition of each row; None for the first [row].

        Raises:
            SpoolError: There is no room for them.
        """
        if not len(table):
            return
        if numbers is None:
            self.put(table, 0)
            return
        self.num_rows += len(table)
        self._held_bytes += table.nbytes
        order = np.argsort(numbers, kind="stable")
        dealt = one_chunk(table).take(pa.array(order))
        borders = np.searchsorted(numbers[order], np.arange(self.num_partitions + 1))
        for number, (start, end) in enumerate(itertools.pairwise(borders)):
            if start < end:
                self._held[number].append(dealt.slice(int(start), int(end - start)))
        if self._held_bytes > self._max_held_bytes:
            self._write()

    def put(self, table: pa.Table, partition: int) -> None:
        """Add rows to one partition; errors as ``add``."""
        self.num_rows += len(table)
        self._held_bytes += table.nbytes
        self._held[partition].append(table)
        if self._held_bytes > self._max_held_bytes:
            self._write()

    def tables(self, partition: int = 0) -> Iterator[pa.Table]:
        """Yield the rows of a partition, some megabytes at a time."""
        for start, length in self._written[partition]:
            yield self._read(start, length)
        yield from self._held[partition]

    def filled(self) -> list[int]:
        """Return the partitions that have rows."""
        parts = zip(self._held, self._written, strict=True)
        return [number for number, part in enumerate(parts) if any(part)]

    def partition(self, number: int) -> pa.Table:
        """Return all rows of a partition."""
        return one_chunk(pa.concat_tables([self.schema.empty_table(), *self.tables(number)]))

    def close(self) -> None:
        """Forget all rows."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._held = [[] for _ in range(self.num_partitions)]
        self._written = [[] for _ in range(self.num_partitions)]

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile("w+b", prefix="clora-rows-", buffering=0)  # noqa: SIM115 - kept
            for tables, written in zip(self._held, self._written, strict=True):
                if tables:
                    written.append((self._end, self._append(pa.concat_tables(tables))))
                    self._end += written[-1][1]
        except OSError as error:
            raise SpoolError(_sentence(error, self._what, self._end)) from error
        self._held = [[] for _ in range(self.num_partitions)]
        self._held_bytes = 0
        # What was written is not needed again soon, and Arrow would keep its memory.
        pa.default_memory_pool().release_unused()

    def _append(self, table: pa.Table) -> int:
        """Write a table to the end of the file; return its length."""
        if self._file is None:
            raise ValueError("the spool is closed")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.schema, options=_OPTIONS) as writer:
            writer.write_table(compacted(table))
        content = memoryview(sink.getvalue())
        left = content
        while left:
            # A disk that fills up takes a part of it, without an error.
            left = left[self._file.write(left) :]
        return len(content)

    def _read(self, start: int, length: int) -> pa.Table:
        if self._file is None:
            raise ValueError("the spool is closed")
        content = os.pread(self._file.fileno(), length, start)
        with pa.ipc.open_stream(content) as reader:
            return reader.read_all()


def _sentence(error: OSError, what: str, num_bytes: int) -> str:
    folder = tempfile.gettempdir()
    way_out = (
        "make room there, or set TMPDIR to a folder on a disk with more"
        if error.errno in _FULL
        else "set TMPDIR to a folder that can be written to"
    )
    return (
        f"{what} do not fit {folder}, where {num_bytes:,} bytes of them are "
        f"already: {error.strerror or error}; {way_out}"
    )
