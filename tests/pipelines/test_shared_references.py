"""Runs that share a folder of references: each made once, by one of them, and never overwritten."""

import random
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from engine_kit import (
    BASE_MODEL,
    SAMPLER,
    SIDE_PX,
    FakeModelHost,
    FakeScorer,
    lora,
    planned_table,
    request,
    row,
)
from hypothesis import given
from hypothesis import strategies as st

from clora_core.recipe.row import Row
from pipelines.leases import makers
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.makers import present
from pipelines.leases.seal import seal_units
from pipelines.leases.shared_images import restore_shared_images
from pipelines.leases.unit_claims import make_shared_units
from pipelines.ledger.ledger import read_ledger
from pipelines.ledger.lost_images import damaged_images
from pipelines.planning.plan import Plan
from pipelines.planning.references import SEEDS_PER_BLOCK, ReferenceSettings
from pipelines.run_plan import plan_references, plan_rows
from pipelines.session.resources import Resources
from pipelines.stages.commit import CommitUnits
from pipelines.stages.generate import generate_unit
from pipelines.stages.score import ScoreImages
from pipelines.storage.error import StorageError
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name
from pipelines.units.committed_unit import rows_name
from pipelines.units.message import UnitFacts, UnitMessage
from pipelines.units.output_files import read_table
from pipelines.units.receipts import Receipt, read_receipts
from pipelines.upkeep.verify import verify_units

NOWHERE = Path("/nowhere")
NAMES = ("cat", "dog", "fox", "owl")


def planned(names: Sequence[str], asked: int) -> Plan:
    """Return the plan of a run whose rows name some LoRAs and ask for some references of each."""
    settings = ReferenceSettings(num_references=asked, sampler=SAMPLER, side_px=SIDE_PX)
    manifest = [row(index, loras=(lora(name),)) for index, name in enumerate(names)]
    wanted = request(
        NOWHERE,
        manifest,
        references={BASE_MODEL: settings},
        resources=Resources(rows_per_unit=asked),
    )
    plan = plan_references(wanted, plan_rows(wanted, read_ledger(LocalStorage(NOWHERE))))
    assert plan is not None
    return plan


def units(plan: Plan) -> dict[str, frozenset[str]]:
    """Return the keys of each unit by its id."""
    return {
        unit["unit_id"]: frozenset(one["key"] for one in unit["rows"])
        for unit in plan.units.to_pylist()
    }


@given(
    one=st.permutations(NAMES).map(lambda names: names[:3]),
    two=st.permutations(NAMES).map(lambda names: names[:3]),
    asked=st.tuples(st.integers(1, 17), st.integers(1, 17)),
)
def test_what_two_runs_both_need_is_in_the_same_units_whatever_else_they_ask_for(
    one: list[str], two: list[str], asked: tuple[int, int]
):
    first, second = units(planned(one, asked[0])), units(planned(two, asked[1]))
    for unit_id in first.keys() & second.keys():
        assert first[unit_id] == second[unit_id]
    only_first = {key for unit_id in first.keys() - second.keys() for key in first[unit_id]}
    assert only_first.isdisjoint(key for keys in second.values() for key in keys)


@given(asked=st.integers(1, 17))
def test_whole_blocks_of_seeds_are_made_and_each_is_a_unit(asked: int):
    plan = planned(("cat", "dog"), asked)
    assert {len(keys) for keys in units(plan).values()} == {SEEDS_PER_BLOCK}
    per_lora = plan.num_rows / 2
    assert asked <= per_lora < asked + SEEDS_PER_BLOCK


class Killed(BaseException):
    """The end of a run's process, as far as a thread can have one."""


@dataclass
class World:
    """A folder that several runs use in threads, each operation after a pause of random length."""

    folder: Path
    chance: random.Random
    dead: set[str] = field(default_factory=set)
    computed: Counter[str] = field(default_factory=Counter)
    claimed_twice: list[str] = field(default_factory=list)
    working: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class JumpyStorage(LocalStorage):
    """Lets other threads run before each operation, and ends its run at one of them."""

    def __init__(self, world: World, run_id: str, lives_for: int | None) -> None:
        super().__init__(world.folder)
        self._world = world
        self._run_id = run_id
        self._left = lives_for

    def _step(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._world.dead.add(self._run_id)
                raise Killed
        time.sleep(self._world.chance.random() * 0.002)

    def put(self, name: str, content: bytes) -> None:
        self._step()
        super().put(name, content)

    def put_all(self, files: Any) -> None:
        self._step()
        super().put_all(files)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        self._step()
        return super().put_if_absent(name, content)

    def list(self, folder: str, suffix: str) -> list[str]:
        self._step()
        return super().list(folder, suffix)

    def exists(self, name: str) -> bool:
        self._step()
        return super().exists(name)

    def delete(self, name: str) -> None:
        self._step()
        super().delete(name)


class CountingEngine(FakeModelHost):
    """Counts what is computed, and notices if a live run computes the same at the same time."""

    def __init__(self, world: World, run_id: str) -> None:
        super().__init__()
        self._world = world
        self._run_id = run_id

    def compose(self, rows: Any) -> Any:
        world = self._world
        names = [f"{row.prompt} {row.seed}" for row in rows]
        with world.lock:
            world.computed.update(names)
            holders = [world.working.get(name) for name in names]
            world.claimed_twice += [
                holder for holder in holders if holder is not None and holder not in world.dead
            ]
            world.working |= dict.fromkeys(names, self._run_id)
        time.sleep(world.chance.random() * 0.005)
        return super().compose(rows)


def a_run(
    world: World, run_id: str, plan: Plan, lives_for: int | None, made: list[Receipt]
) -> None:
    storage = JumpyStorage(world, run_id, lives_for)
    stages = CommitUnits(storage=storage, run_id=run_id, dino_digest="d", is_shared=True)
    engine, score = CountingEngine(world, run_id), ScoreImages(FakeScorer(), dict)
    assert stages.claims is not None
    claims = stages.claims

    def make(units: Plan) -> Generator[Receipt]:
        for unit in units.units.to_pylist():
            members = [
                one for one in units.members() if one.key in {r["key"] for r in unit["rows"]}
            ]
            message = claims.claim(message_of(unit["unit_id"], members))
            if not message.facts.is_idle:
                message = generate_unit(message, engine, stages.attempts)
            yield from read_receipts(stages(score(message)))

    try:
        with present(storage, run_id, LeaseTimes(beat_s=1000.0)):
            looks = LeaseTimes(beat_s=0.004, silence_s=1000.0)
            made += make_shared_units(plan, make, storage, times=looks, note=lambda _: None)
    except Killed:
        return


def message_of(unit_id: str, members: list[Row]) -> UnitMessage:
    return UnitMessage(unit_id=unit_id, rows=planned_table(members), facts=UnitFacts())


@pytest.mark.parametrize("number", range(12))
def test_of_runs_that_work_side_by_side_and_die_each_reference_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    world = World(tmp_path, random.Random(number))
    current = threading.local()
    monkeypatch.setattr(makers, "this_process", lambda: current.run_id)
    monkeypatch.setattr(makers, "is_gone", world.dead.__contains__)
    asked = {"one": 5, "two": 12, "three": 20}
    lives_for = {"one": None, "two": world.chance.randint(5, 80), "three": None}
    if number % 3 == 0:
        lives_for["three"] = world.chance.randint(5, 80)
    made: dict[str, list[Receipt]] = {run_id: [] for run_id in asked}

    def start(run_id: str) -> None:
        current.run_id = run_id
        plan = planned(NAMES, asked[run_id])
        a_run(world, run_id, plan, lives_for[run_id], made[run_id])

    threads = [threading.Thread(target=start, args=(run_id,)) for run_id in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive()

    storage = LocalStorage(tmp_path)
    ledger = read_ledger(storage)
    alive = [run_id for run_id in asked if run_id not in world.dead]
    assert "one" in alive
    for run_id in alive:
        plan = planned(NAMES, asked[run_id])
        assert plan.keys() <= ledger.made
        assert sorted(one.unit_id for one in made[run_id]) == sorted(plan.unit_ids)
        assert sum(one.num_made for one in made[run_id]) == plan.num_rows
    assert ledger.num_doubled == 0
    assert world.claimed_twice == []
    # What a run that died was at is made again, and nothing else.
    again = sum(world.computed.values()) - len(world.computed)
    assert again <= SEEDS_PER_BLOCK * len(world.dead)
    assert [text for check in verify_units(storage) for text in check.problems] == []
    restore_shared_images(storage, times=LeaseTimes(), note=lambda _: None)
    assert damaged_images(storage, ledger) == []
    assert makers.maker_ids(storage) == set()
    assert [text for check in verify_units(storage) for text in check.problems] == []


def test_what_a_run_left_undone_is_made_in_another_pass(tmp_path: Path):
    storage, plan = LocalStorage(tmp_path), planned(("cat", "dog"), 10)
    passes: list[tuple[str, ...]] = []

    def make(units: Plan) -> Generator[Receipt]:
        passes.append(units.unit_ids)
        for unit_id in units.unit_ids:
            held_by = "a run that is over" if len(passes) == 1 and unit_id in held else ""
            yield Receipt(
                unit_id=unit_id, committed=not held_by, rows=(), facts=UnitFacts(held_by=held_by)
            )

    held = plan.unit_ids[1:3]
    receipts = make_shared_units(plan, make, storage, times=LeaseTimes(), note=pytest.fail)
    assert sorted(one.unit_id for one in receipts) == sorted(plan.unit_ids)
    assert passes == [plan.unit_ids, held]
    assert units(plan.only(held)) == {unit_id: units(plan)[unit_id] for unit_id in held}


def test_who_comes_second_does_not_touch_the_images_of_the_first(tmp_path: Path):
    storage = LocalStorage(tmp_path)
    plan = planned(("cat",), 5)
    (unit_id,) = plan.unit_ids
    message = generate_unit(message_of(unit_id, list(plan.members())), FakeModelHost())
    scored = ScoreImages(FakeScorer(), dict)(message)

    class Late(LocalStorage):
        """Does not see the unit that is committed while it looks."""

        def exists(self, name: str) -> bool:
            return name != rows_name(unit_id) and super().exists(name)

    first = CommitUnits(storage=storage, run_id="one", dino_digest="d", is_shared=True)
    late = CommitUnits(storage=Late(tmp_path), run_id="two", dino_digest="d", is_shared=True)
    (receipt,) = read_receipts(first(scored))
    assert receipt.committed
    files = {name: (tmp_path / name).stat().st_mtime_ns for name in storage.walk("images")}
    assert len(files) == SEEDS_PER_BLOCK
    (receipt,) = read_receipts(late(scored))
    assert not receipt.committed
    assert receipt.num_made == SEEDS_PER_BLOCK
    assert files == {name: (tmp_path / name).stat().st_mtime_ns for name in storage.walk("images")}
    assert set(read_table(storage, rows_name(unit_id), ["run_id"])["run_id"].to_pylist()) == {"one"}


class Unwritten(LocalStorage):
    """Ends its run after a commit, before the images are written."""

    def put_all(self, files: Any) -> None:
        if any(name.startswith("images/") for name in files):
            raise Killed
        super().put_all(files)


@pytest.fixture
def committed(tmp_path: Path) -> tuple[LocalStorage, bytes]:
    """A store where run ``one`` committed a unit without its images, and the file that run left."""
    storage = Unwritten(tmp_path)
    plan = planned(("cat",), 5)
    message = generate_unit(message_of(plan.unit_ids[0], list(plan.members())), FakeModelHost())
    scored = ScoreImages(FakeScorer(), dict)(message)
    stages = CommitUnits(storage=storage, run_id="one", dino_digest="d", is_shared=True)
    with present(storage, "one", LeaseTimes(beat_s=1000.0)):
        maker = storage.read("makers/one.json")
        with pytest.raises(Killed):
            stages(scored)
    storage.put("makers/one.json", maker)
    return LocalStorage(tmp_path), maker


def problems_and_unwritten(storage: LocalStorage) -> tuple[int, int]:
    (check,) = verify_units(storage)
    return len(check.problems), check.num_unwritten


def test_images_that_a_live_run_is_about_to_write_are_left_to_it(
    committed: tuple[LocalStorage, bytes],
):
    storage, maker = committed
    lost = damaged_images(storage, read_ledger(storage))
    assert len(lost) == SEEDS_PER_BLOCK
    assert problems_and_unwritten(storage) == (0, SEEDS_PER_BLOCK)

    def beat(_seconds: float) -> None:
        storage.put("makers/one.json", maker.replace(b"one", b"two"))

    restore_shared_images(storage, times=LeaseTimes(), note=pytest.fail, sleep=beat)
    assert damaged_images(storage, read_ledger(storage)) == lost
    assert makers.maker_ids(storage) == {"one"}


def test_a_try_that_was_killed_before_its_images_is_completed_by_the_next_of_its_run(
    committed: tuple[LocalStorage, bytes],
):
    storage, _ = committed
    plan = planned(("cat",), 5)
    message = generate_unit(message_of(plan.unit_ids[0], list(plan.members())), FakeModelHost())
    scored = ScoreImages(FakeScorer(), dict)(message)
    CommitUnits(storage=storage, run_id="two", dino_digest="d", is_shared=True)(scored)
    assert len(damaged_images(storage, read_ledger(storage))) == SEEDS_PER_BLOCK
    CommitUnits(storage=storage, run_id="one", dino_digest="d", is_shared=True)(scored)
    assert damaged_images(storage, read_ledger(storage)) == []


def test_a_unit_that_a_repair_set_aside_meanwhile_is_not_taken_for_done(tmp_path: Path):
    storage, plan = LocalStorage(tmp_path), planned(("cat", "dog"), 5)
    seal_units(storage, plan.unit_ids, run_id="repair")
    message = message_of(plan.unit_ids[0], list(plan.members())[:5])
    stages = CommitUnits(storage=storage, run_id="one", dino_digest="d", is_shared=True)
    with pytest.raises(StorageError, match="run the same command again"):
        stages(message.with_facts(message.rows, is_done=True))

    def make(units: Plan) -> Generator[Receipt]:
        for unit_id in units.unit_ids:
            facts = UnitFacts(held_by="gone")
            yield Receipt(unit_id=unit_id, committed=False, rows=(), facts=facts)

    with pytest.raises(StorageError, match="run the same command again"):
        list(make_shared_units(plan, make, storage, times=LeaseTimes(), note=lambda _: None))


def test_images_that_a_run_elsewhere_left_unwritten_are_written_after_its_silence(
    committed: tuple[LocalStorage, bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(makers, "is_gone", lambda _process: False)
    storage, _ = committed
    waited: list[float] = []
    notes: list[str] = []
    restore_shared_images(storage, times=LeaseTimes(), note=notes.append, sleep=waited.append)
    assert sum(waited) == LeaseTimes().silence_s
    assert "5 image file(s)" in notes[0]
    assert makers.maker_ids(storage) == set()
    assert problems_and_unwritten(storage) == (0, 0)


def test_images_that_are_lost_later_are_a_problem(committed: tuple[LocalStorage, bytes]):
    storage, maker = committed
    storage.delete("makers/one.json")
    assert problems_and_unwritten(storage) == (SEEDS_PER_BLOCK, 0)
    storage.put("makers/one.json", maker)
    key = damaged_images(storage, read_ledger(storage))[0]
    storage.put(image_name(key), b"another picture")
    assert problems_and_unwritten(storage) == (1, SEEDS_PER_BLOCK - 1)
