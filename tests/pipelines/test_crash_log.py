"""The log of a disk and the model of a power cut, against what POSIX says."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_disk import KINDS, Disk, Entry, Files
from crash_log import recorded

REAL_RENAME = os.rename


def write(folder: Path) -> None:
    (folder / "new").write_bytes(b"new")


def write_over(folder: Path) -> None:
    os.close(os.open(folder / "old", os.O_WRONLY | os.O_TRUNC))


def rename_past_the_log(folder: Path) -> None:
    REAL_RENAME(folder / "old", folder / "new")


@pytest.mark.parametrize("change", [write, write_over, rename_past_the_log])
def test_a_change_that_the_log_cannot_know_is_refused(
    tmp_path: Path, change: Callable[[Path], None]
):
    (tmp_path / "old").write_bytes(b"old")
    recording = recorded(tmp_path)
    recording.__enter__()
    change(tmp_path)
    with pytest.raises(AssertionError, match="changed past the log"):
        recording.__exit__(None, None, None)


def states_after(start: Files, *log: Entry) -> dict[str, Files]:
    """Return what a cut leaves, by kind."""
    disk = Disk(start)
    for entry in log:
        disk.apply(entry)
    return {kind: disk.files(names, "durable") for kind, names in KINDS.items()}


def test_bytes_need_their_file_synced_and_names_their_folder():
    made = (Entry("create", ("new",), 1), Entry("write", handle=1, value=b"text"))
    synced = (*made, Entry("fsync", handle=1))
    folder = (Entry("open", (".",), 2), Entry("fsync", handle=2))
    assert states_after({}, *made) == {
        "strict": {},
        "names kept": {"new": b""},
        "removals lost": {"new": b""},
    }
    assert states_after({}, *synced)["strict"] == {}
    assert states_after({}, *synced)["names kept"] == {"new": b"text"}
    assert states_after({}, *synced, *folder)["strict"] == {"new": b"text"}


def test_a_name_in_a_new_folder_needs_the_folders_above_synced_too():
    made = (
        Entry("mkdir", ("a",)),
        Entry("create", ("a/new",), 1),
        Entry("open", ("a",), 2),
        Entry("fsync", handle=2),
    )
    above = (Entry("open", (".",), 3), Entry("fsync", handle=3))
    assert states_after({}, *made)["strict"] == {}
    assert states_after({}, *made, *above)["strict"] == {"a": None, "a/new": b""}


def test_a_removal_and_a_replacement_come_back_until_their_folder_is_synced():
    start = {"gone": b"1", "kept": b"2", "written": b"3"}
    log = (Entry("unlink", ("gone",)), Entry("rename", ("written", "kept")))
    after = {"kept": b"3"}
    assert states_after(start, *log)["removals lost"] == start
    assert states_after(start, *log)["names kept"] == after
    folder = (Entry("open", (".",), 1), Entry("fsync", handle=1))
    assert states_after(start, *log, *folder) == dict.fromkeys(KINDS, after)
