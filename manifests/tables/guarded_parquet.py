"""Parquet from outside, decoded in a process of its own.

Some damaged Parquet files abort the process that reads them, and no ``except`` catches that. So a
child process decodes the file (``parquet_child``), and this process reads nothing but the Arrow
stream that it sends, whose batches are checked. If the child dies or hangs, that is a sentence
with the file's name.
"""

import io
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from manifests.places.locations import LocationError, StoreAwayError
from manifests.tables.parquet_child import HANDLED

PATIENCE_S = 900.0
"""How long the child may send nothing; a store that is away is waited for a minute, and more than
once."""

LEAVE_S = 10.0
"""How long the child may take to end after its stream has ended."""

MAX_STDERR_BYTES = 64 * 1024

_CRASHES = {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}


class ParquetBatches(Iterator[pa.RecordBatch]):
    """The record batches of a Parquet file, as the child sends them.

    Attributes:
        schema: Of the batches; two columns may have the same name.
    """

    def __init__(self, file: str, child: "subprocess.Popen[bytes]", stderr: IO[bytes]) -> None:
        self._file = file
        self._child = child
        self._stderr = stderr
        pipe = io.BufferedReader(_PatientPipe(file, cast("IO[bytes]", child.stdout).fileno()))
        try:
            self._stream = pa.ipc.open_stream(pa.PythonFile(pipe, mode="r"))
        except pa.ArrowException as error:
            raise self._ended() or error from None
        self.schema: pa.Schema = self._stream.schema

    def __next__(self) -> pa.RecordBatch:
        """Return the next batch.

        Raises:
            LocationError: The child could not read the file, died or hangs.
            StoreAwayError: The store that the file is in does not answer.
        """
        try:
            return self._stream.read_next_batch()
        except StopIteration:
            problem = self._ended()
            if problem is not None:
                raise problem from None
            raise
        except pa.ArrowException as error:
            raise self._ended() or error from None

    def _ended(self) -> LocationError | StoreAwayError | None:
        """Wait until the child has ended, and return what was wrong, if anything."""
        try:
            code = self._child.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            return LocationError(
                f"{self._file} cannot be read: the process that reads it does not end; try again"
            )
        return None if code == 0 else _problem(self._file, code, self._stderr)


@contextmanager
def open_batches(file: str, *, groups: range | None = None) -> Generator[ParquetBatches]:
    """Start a process that decodes a Parquet file; it has ended when the block is left.

    Args:
        file: Absolute path or URI.
        groups: Row groups that are read; all if None.

    Returns:
        The batches, at most a few thousand rows each. Those before a damaged part come first.

    Raises:
        LocationError: The file cannot be read, says that it holds too much, or ends or stops the
            process that reads it; from here or while batches are taken.
        StoreAwayError: The store that it is in does not answer.
    """
    part = () if groups is None else (str(groups.start), str(len(groups)))
    with _opened(file, part) as batches:
        yield batches


def row_group_sizes(file: str) -> list[int]:
    """Return how many rows each row group of a Parquet file has.

    Raises:
        LocationError: As ``open_batches``.
        StoreAwayError: As ``open_batches``.
    """
    with _opened(file, ("--groups",)) as batches:
        return [size for batch in batches for size in batch.column("num_rows").to_pylist()]


@contextmanager
def _opened(file: str, part: Sequence[str]) -> Generator[ParquetBatches]:
    with tempfile.TemporaryFile() as stderr, _child(file, part, stderr) as child:
        try:
            yield ParquetBatches(file, child, stderr)
        except (pa.ArrowException, MemoryError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise LocationError(f"{file} cannot be read: {reason}") from error


@contextmanager
def _child(
    file: str, part: Sequence[str], stderr: IO[bytes]
) -> Generator["subprocess.Popen[bytes]"]:
    # What this process can import, the child can, from any folder.
    folders = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
    try:
        child = subprocess.Popen(  # noqa: S603 - no shell; the file is one argument
            [*_command(file), *part],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            bufsize=0,
            env=os.environ | {"PYTHONPATH": folders},
            process_group=0,  # Ctrl-C is for the parent to judge
        )
    except (OSError, ValueError) as error:  # no process to be had; a name that holds NUL
        raise LocationError(f"{file!r} cannot be read: {error}") from error
    with child:
        try:
            yield child
        finally:
            child.kill()


def _command(file: str) -> list[str]:
    """Return the child's command; ``-P`` keeps modules in the current folder from being run."""
    return [sys.executable, "-P", "-m", "manifests.tables.parquet_child", file]


class _PatientPipe(io.RawIOBase):
    """The child's stdout, which may be silent for so long and no longer."""

    def __init__(self, file: str, descriptor: int) -> None:
        self._file = file
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not self._poll.poll(PATIENCE_S * 1000):
            raise LocationError(
                f"{self._file} cannot be read: the process that reads it sent nothing for "
                f"{PATIENCE_S:g} seconds; write the file again, or check the store that it is in"
            )
        return os.readv(self._descriptor, [buffer])


def _problem(file: str, code: int, stderr: IO[bytes]) -> LocationError | StoreAwayError:
    """Return what is wrong with a file whose child ended with another code than 0."""
    if code == HANDLED:
        said = json.loads(_last_line(stderr))
        return (StoreAwayError if said["is_away"] else LocationError)(said["problem"])
    return LocationError(_unexpected(file, code, stderr))


def _last_line(stderr: IO[bytes]) -> str:
    stderr.seek(0, os.SEEK_END)
    stderr.seek(max(0, stderr.tell() - MAX_STDERR_BYTES))
    return (stderr.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]


def _unexpected(file: str, code: int, stderr: IO[bytes]) -> str:
    if code == -signal.SIGKILL:
        return (
            f"{file} cannot be read: the process that reads it was killed, as happens where "
            "memory runs out; write smaller row groups, or use a machine with more memory"
        )
    if -code in _CRASHES:
        return (
            f"{file} cannot be read: reading it ends the process ({_signal_name(-code)}); it is "
            "damaged: write the file again"
        )
    if code < 0:
        return (
            f"{file} cannot be read: the process that reads it was ended from outside "
            f"({_signal_name(-code)}); try again"
        )
    return (
        f"{file} cannot be read: the process that reads it ended with code {code} "
        f"({_last_line(stderr)[:200]}); write the file again if others can be read"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
