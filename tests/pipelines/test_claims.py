"""Work that several runs want is done by one of them, and by another if that one dies."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.leases.claims import Claimant, Standing, wait_until_free
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.makers import present
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage, open_storage

TIMES = LeaseTimes(beat_s=5.0, silence_s=30.0)
MINE, DONE = Standing(), Standing(is_done=True)


@pytest.fixture(params=["disk", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "disk":
        return open_storage(str(tmp_path / "out"))
    return open_storage(request.getfixturevalue("s3_uri"))


def claim(storage: Storage, run_id: str, work: str = "w", *, is_done: bool = False) -> Standing:
    return Claimant(storage=storage, run_id=run_id).claim(work, lambda: is_done)


def test_the_first_to_come_does_the_work_and_others_hear_who_does(storage: Storage):
    with present(storage, "one", TIMES), present(storage, "two", TIMES):
        assert claim(storage, "one") == MINE
        assert claim(storage, "two") == Standing(held_by="one")
        assert claim(storage, "one") == MINE, "a second try of a run keeps its claim"
        assert claim(storage, "two", "another") == MINE


def test_a_claim_ends_with_its_run(storage: Storage):
    with present(storage, "two", TIMES), present(storage, "three", TIMES):
        with present(storage, "one", TIMES):
            claim(storage, "one")
        assert claim(storage, "two") == MINE
        assert claim(storage, "three") == Standing(held_by="two")
        with present(storage, "one", TIMES):
            assert claim(storage, "one") == Standing(held_by="two"), "the last claim holds"


def test_work_that_is_done_is_not_claimed(storage: Storage):
    assert claim(storage, "one", is_done=True) == DONE
    assert list(storage.walk("claims")) == []


def test_work_that_was_done_just_before_it_is_taken_over_is_not_done_again(storage: Storage):
    claim(storage, "one")
    answers = iter([False, True])
    late = Claimant(storage=storage, run_id="two").claim("w", lambda: next(answers))
    assert late == DONE


def test_a_damaged_claim_holds_nothing(storage: Storage):
    with present(storage, "one", TIMES):
        claim(storage, "one")
        (name,) = storage.walk("claims")
        storage.put(name, b"")
        assert claim(storage, "two") == MINE


def test_claims_whose_number_is_missing_among_others_hold_up_nobody(storage: Storage):
    for run_id in ("one", "two"):
        with present(storage, run_id, TIMES):
            claim(storage, run_id)
    first, last = sorted(storage.walk("claims"))
    storage.delete(first)
    assert claim(storage, "three") == MINE
    assert sorted(storage.walk("claims"))[0] == last


def test_of_many_that_come_at_once_one_gets_each_work(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    works = [f"w{number}" for number in range(20)]
    found: dict[str, list[Standing]] = {}
    start = threading.Barrier(6)

    def work_through(run_id: str) -> None:
        with present(storage, run_id, TIMES):
            start.wait()
            found[run_id] = [claim(storage, run_id, work) for work in works]
            start.wait()

    threads = [threading.Thread(target=work_through, args=(f"run-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(len(works)):
        owners = [run_id for run_id, standings in found.items() if standings[number] == MINE]
        assert len(owners) == 1
        assert {standings[number].held_by for standings in found.values()} == {"", owners[0]}


def wait(
    storage: Storage, held: dict[str, str], done: Sequence[set[str]]
) -> tuple[set[str], list[str]]:
    """Wait as works get done, a set a look; return what is done then, and what was said."""
    looks = iter(done)
    notes: list[str] = []
    found = wait_until_free(
        storage,
        held,
        lambda: next(looks),
        what="pictures",
        times=TIMES,
        note=notes.append,
        sleep=lambda _: None,
    )
    return set(found), notes


def test_who_waits_hears_of_it_and_goes_on_when_all_is_done(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    with present(storage, "one", TIMES):
        held = {"a": "one", "b": "one"}
        done, notes = wait(storage, held, [set(), {"a"}, {"a", "b", "c"}])
    assert done == {"a", "b"}
    assert len(notes) == 1
    assert notes[0].startswith("waiting for 2 pictures made by run one on ")


def test_who_waits_goes_on_as_soon_as_something_is_free(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    with present(storage, "one", TIMES):
        done, _ = wait(storage, {"a": "one", "b": "gone"}, [set()])
    assert done == set()


def test_who_waits_for_a_silent_run_hears_that_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipelines.leases.makers.is_gone", lambda _process: False)
    storage = LocalStorage(tmp_path)
    with present(storage, "one", TIMES):
        content = storage.read("makers/one.json")
    storage.put("makers/one.json", content)
    done, notes = wait(storage, {"a": "one"}, [set()] * 100)
    assert done == set()
    assert "is over; what it left undone is made here" in notes[-1]
    assert claim(storage, "two", "a") == MINE
