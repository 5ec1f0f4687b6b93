"""Runs that share a store see each other at work, and see when one is over."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from pipelines.leases import makers
from pipelines.leases.heartbeat import LeaseTimes, SilenceWatch
from pipelines.leases.lease import LeaseHeldError
from pipelines.leases.makers import (
    MakerWatch,
    forget_makers_over,
    live_maker,
    live_makers,
    maker_ids,
    present,
    refuse_while_made,
)
from pipelines.storage.local import LocalStorage

TIMES = LeaseTimes(beat_s=5.0, silence_s=30.0)
FILE = "makers/one.json"


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path)


def as_if_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let makers be on a machine whose processes cannot be looked at."""
    monkeypatch.setattr(makers, "is_gone", lambda _process: False)


def left_by_a_dead_run(storage: LocalStorage) -> bytes:
    """Return what the file of a run says, and leave it as a kill does."""
    with present(storage, "one", TIMES):
        content = storage.read(FILE)
    storage.put(FILE, content)
    return content


def test_a_run_is_there_while_it_works_and_not_afterwards(storage: LocalStorage):
    assert live_makers(storage) == []
    with present(storage, "one", TIMES), present(storage, "two", TIMES):
        assert {maker.run_id for maker in live_makers(storage)} == {"one", "two"}
    assert live_makers(storage) == []


def test_a_run_that_breaks_off_is_over_at_once_and_remembered(storage: LocalStorage):
    with pytest.raises(KeyboardInterrupt), present(storage, "one", TIMES):
        raise KeyboardInterrupt
    assert live_makers(storage) == []
    assert maker_ids(storage) == {"one"}


def test_a_run_beats_while_it_works(storage: LocalStorage):
    beaten = Event()

    class Beating(LocalStorage):
        def put(self, name: str, content: bytes) -> None:
            super().put(name, content)
            maker = live_maker(self, "one")
            if maker is not None and maker.beat >= 3:
                beaten.set()

    with present(Beating(Path(storage.uri)), "one", LeaseTimes(beat_s=0.01, silence_s=1.0)):
        assert beaten.wait(10.0)


def test_a_run_whose_file_was_deleted_writes_it_again(storage: LocalStorage):
    with present(storage, "one", LeaseTimes(beat_s=0.01, silence_s=1.0)):
        storage.delete(FILE)
        deadline = Event()
        for _ in range(1000):
            if live_maker(storage, "one") is not None:
                break
            deadline.wait(0.01)
        assert live_maker(storage, "one") is not None


def test_a_run_whose_process_is_gone_from_this_machine_is_over_at_once(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    left_by_a_dead_run(storage)
    assert live_maker(storage, "one") is not None
    monkeypatch.setattr(makers, "is_gone", bool)
    assert live_maker(storage, "one") is None


def test_a_run_that_comes_back_between_two_looks_is_not_forgotten(storage: LocalStorage):
    with present(storage, "one", TIMES):

        class GoneForOneRead(LocalStorage):
            def read(self, name: str) -> bytes:
                raise FileNotFoundError(name)

        forget_makers_over(GoneForOneRead(Path(storage.uri)))
        assert live_maker(storage, "one") is not None


def test_a_run_that_was_silent_for_long_enough_is_over_for_all_until_it_writes_again(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    as_if_elsewhere(monkeypatch)
    left_by_a_dead_run(storage)
    watch = MakerWatch(storage, TIMES)
    seen = [watch.look("one", waited_s=waited_s) for waited_s in (0.0, 10.0, 10.0, 10.0)]
    assert [maker is not None for maker in seen] == [True, True, True, False]
    assert live_makers(storage) == []
    assert maker_ids(storage) == {"one"}, "it may have left images unwritten"
    with present(storage, "one", TIMES):
        assert live_maker(storage, "one") is not None


def test_a_beat_ends_a_silence(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch):
    as_if_elsewhere(monkeypatch)
    content = left_by_a_dead_run(storage)
    watch = MakerWatch(storage, TIMES)
    assert watch.look("one", waited_s=0.0)
    assert watch.look("one", waited_s=29.0)
    storage.put(FILE, b"damaged, so written by somebody")
    assert watch.look("one", waited_s=29.0)
    storage.put(FILE, content)
    assert watch.look("one", waited_s=29.0)


def test_time_in_which_nobody_could_look_is_no_silence():
    silence = SilenceWatch(TIMES, (1, "a"))
    assert not silence.is_dead((1, "a"), waited_s=29.0, looked_s=0.1)
    assert not silence.is_dead((1, "a"), waited_s=2.0, looked_s=60.0)
    assert not silence.is_dead((1, "a"), waited_s=29.0, looked_s=0.1)
    assert silence.is_dead((1, "a"), waited_s=2.0, looked_s=0.1)


def test_a_damaged_file_is_of_a_run_that_may_live(storage: LocalStorage):
    storage.put(FILE, b"{")
    maker = live_maker(storage, "one")
    assert maker is not None
    assert maker.described() == "run one"


def refused(storage: LocalStorage, sleep: Callable[[float], None]) -> list[str]:
    notes: list[str] = []
    refuse_while_made(storage, times=TIMES, note=notes.append, sleep=sleep)
    return notes


def test_a_store_is_refused_while_a_run_makes_things_there(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
):
    as_if_elsewhere(monkeypatch)
    assert refused(storage, sleep=lambda _: None) == []
    content = left_by_a_dead_run(storage)

    def beat(_seconds: float) -> None:
        storage.put(FILE, content.replace(b"one", b"two"))

    with pytest.raises(LeaseHeldError, match=r"is being written by run one"):
        refused(storage, sleep=beat)
    storage.put(FILE, content)
    waited: list[float] = []
    (note,) = refused(storage, sleep=waited.append)
    assert "watching for up to 30 s whether it lives" in note
    assert sum(waited) == 30.0
