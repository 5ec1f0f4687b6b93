"""The fuse phase: each adapter made once, resumed, shared, and a failure its own rows' alone."""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_kit import (
    BASE_MODEL,
    UNFUSABLE,
    FakeModelHost,
    Watcher,
    fused_adapter,
    fusions_of,
    lora,
    request,
    row,
)
from inline_engine import run_inline

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.fusion import Fusion, fusion_of
from clora_core.recipe.key import row_key
from clora_core.recipe.row import Row
from clora_core.results import RowFailure
from pipelines.fusing.fused_files import check_fused, fused_keys, fused_name
from pipelines.fusing.fused_source import FusedSource
from pipelines.fusing.plan import plan_fusions
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.makers import present
from pipelines.ledger.ledger import read_ledger
from pipelines.run import compose_rows
from pipelines.stages.fuse_stage import CommitFused, fuse_one
from pipelines.stages.fused_work import FusedFile, ReadReference, References
from pipelines.storage.error import StorageError
from pipelines.storage.local import LocalStorage
from pipelines.units.output_files import DamagedFileError, encode_json
from pipelines.upkeep.garbage import find_garbage
from pipelines.upkeep.verify import damaged_files

TIMES = LeaseTimes(beat_s=0.05, silence_s=0.4)
PATIENT = LeaseTimes(beat_s=0.2, silence_s=30.0)
"""For runs that live and must not be taken for dead, however busy the machine is."""


def fused_row(index: int = 0, *names: str, method: str = "mix-of-show", **changes: Any) -> Row:
    """Return a row of a method that fuses LoRAs with these names."""
    loras = tuple(lora(name) for name in names or ("cat", "dog"))
    return row(index, loras=loras, method=method, **changes)


MANIFEST = [
    fused_row(0),
    fused_row(1),
    fused_row(2, "cat", "fox"),
    fused_row(3, method="ziplora"),
    row(4),
]


def key_of(one: Row) -> str:
    fusion = fusion_of(one, dtype="float32")
    assert fusion is not None
    return fusion.key


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch)


def make(out: Path, manifest: list[Row], log: Path, **changes: Any) -> Watcher:
    watcher = Watcher()
    wanted = request(out, manifest, log=log, references={}, **{"lease_times": TIMES, **changes})
    compose_rows(wanted, watcher, address=None)
    return watcher


def test_an_adapter_is_fused_once_for_all_rows_that_need_it(tmp_path):
    watcher = make(tmp_path / "out", MANIFEST, tmp_path / "log")
    wanted = {key_of(one) for one in MANIFEST[:4]}
    assert len(wanted) == 3
    assert Counter(fusions_of(tmp_path / "log")) == Counter(wanted)
    storage = LocalStorage(tmp_path / "out")
    assert fused_keys(storage) == wanted
    assert ("fusions", 3) in watcher.phases
    assert any("3 adapter(s) are fused first" in note for note in watcher.notes)
    assert read_ledger(storage).made == {one.key for one in MANIFEST}
    for key in wanted:
        check_fused(storage, fused_name(key))


def test_rows_without_fusing_have_no_fuse_phase(tmp_path):
    watcher = make(tmp_path / "out", [row(0)], tmp_path / "log")
    assert [phase for phase, _ in watcher.phases] == ["images"]


def test_new_rows_of_known_loras_fuse_nothing(tmp_path):
    make(tmp_path / "out", MANIFEST, tmp_path / "log")
    more = [*MANIFEST, fused_row(9), fused_row(8, "cat", "fox")]
    watcher = make(tmp_path / "out", more, tmp_path / "log")
    assert len(fusions_of(tmp_path / "log")) == 3
    assert [phase for phase, _ in watcher.phases] == ["images"]


def test_a_second_output_that_shares_the_place_fuses_nothing(tmp_path):
    shared = LocalStorage(tmp_path / "shared")
    make(tmp_path / "one", MANIFEST, tmp_path / "log", fused_storage=shared)
    make(tmp_path / "two", MANIFEST, tmp_path / "log", fused_storage=shared)
    assert len(fusions_of(tmp_path / "log")) == 3
    assert read_ledger(LocalStorage(tmp_path / "two")).made == {r.key for r in MANIFEST}


def test_a_changed_lora_file_is_fused_anew(tmp_path):
    make(tmp_path / "out", [fused_row(0)], tmp_path / "log")
    changed = replace(MANIFEST[0].loras[0], digest="cd" * 32)
    other = fused_row(0)
    other = replace(other, loras=(changed, other.loras[1]), key="ef" * 32)
    make(tmp_path / "out", [other], tmp_path / "log")
    assert fusions_of(tmp_path / "log") == [key_of(MANIFEST[0]), key_of(other)]


def test_a_fusion_that_fails_is_the_failure_of_its_rows_alone(tmp_path):
    bad = [fused_row(5, "cat", UNFUSABLE), fused_row(6, "cat", UNFUSABLE)]
    watcher = make(tmp_path / "out", [*MANIFEST, *bad], tmp_path / "log")
    ledger = read_ledger(LocalStorage(tmp_path / "out"))
    assert ledger.made == {one.key for one in MANIFEST}
    assert set(ledger.failed) == {one.key for one in bad}
    (reason,) = {error["message"] for error in ledger.last_errors.values()}
    assert reason == f"its LoRAs were not fused: {UNFUSABLE} cannot be fused"
    assert {error["stage"] for error in ledger.last_errors.values()} == {"fuse"}
    (note,) = (note for note in watcher.notes if "could not be fused" in note)
    assert note.startswith("1 of 4 adapter(s)")
    # It is tried again with its rows, as often as they are.
    make(tmp_path / "out", [*MANIFEST, *bad], tmp_path / "log")
    assert Counter(fusions_of(tmp_path / "log"))[key_of(bad[0])] == 2


def test_a_row_with_an_unusable_file_is_no_reason_to_fuse(tmp_path):
    broken = fused_row(0)
    broken = replace(broken, loras=(replace(broken.loras[0], problem="cut off"), broken.loras[1]))
    plan = plan_fusions(
        [(broken, 1), (fused_row(1, "fox", "owl"), 1)], LocalStorage(tmp_path), dtype="f"
    )
    assert (len(plan.fusions), plan.num_rows) == (1, 1)


def test_a_damaged_adapter_is_found_and_never_sampled_with(tmp_path):
    make(tmp_path / "out", [fused_row(0)], tmp_path / "log")
    storage = LocalStorage(tmp_path / "out")
    path = tmp_path / "out" / fused_name(key_of(fused_row(0)))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (damage,) = damaged_files(storage)
    assert "holds other tensors than were written" in str(damage)
    result = FusedSource(storage=storage, dtype="float32").prepare(fused_row(0))
    assert isinstance(result, RowFailure)
    assert result.error == "FusedAdapterDamaged"
    path.write_bytes(content[:100])
    with pytest.raises(DamagedFileError, match="is no fused adapter"):
        check_fused(storage, fused_name(key_of(fused_row(0))))


def test_an_adapter_that_is_gone_is_a_reason_to_run_again(tmp_path):
    result = FusedSource(storage=LocalStorage(tmp_path), dtype="float32").prepare(fused_row(0))
    assert isinstance(result, RowFailure)
    assert "run the same command again" in result.message


def test_rows_get_the_adapter_in_place_of_their_concepts(tmp_path):
    storage = LocalStorage(tmp_path)
    style = lora("ink", kind="style", subject=None, trigger=None)
    one = fused_row(0)
    one = replace(one, loras=(*one.loras, style))
    fusion = fusion_of(one, dtype="float32")
    assert fusion is not None
    storage.put(fused_name(fusion.key), fused_adapter(fusion))
    prepared = FusedSource(storage=storage, dtype="float32").prepare(one)
    assert isinstance(prepared, Row)
    assert [each.name for each in prepared.sampled_loras] == ["mix-of-show of cat + dog", "ink"]
    local = prepared.with_local_files(local_lora=lambda uri: f"/here{uri}", local_mask=pytest.fail)
    assert [each.uri for each in local.loras][:2] == [each.uri for each in one.loras[:2]]
    assert local.loras[2].uri.startswith("/here")


def test_a_run_that_was_killed_is_forgotten(tmp_path):
    storage = LocalStorage(tmp_path / "out")
    killed = {
        "run_id": "killed", "host": "h", "process": "", "began_at": "", "beat": 1, "beat_at": "",
        "is_over": True,
    }  # fmt: skip
    storage.put("makers/killed.json", encode_json(killed))
    make(tmp_path / "out", [fused_row(0)], tmp_path / "log")
    assert storage.list("makers", ".json") == []


def test_two_runs_that_both_fail_what_the_other_wants_do_not_wait_for_each_other(tmp_path):
    shared = LocalStorage(tmp_path / "shared")
    bad = [fused_row(5, "cat", UNFUSABLE), fused_row(6, "dog", UNFUSABLE)]
    manifests = [bad, bad[::-1]]
    options = {"fused_storage": shared, "lease_times": PATIENT}
    threads = [
        threading.Thread(
            target=make,
            args=(tmp_path / f"out-{number}", manifest, tmp_path / "log"),
            kwargs=options,
            daemon=True,
        )
        for number, manifest in enumerate(manifests)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for number in range(2):
        ledger = read_ledger(LocalStorage(tmp_path / f"out-{number}"))
        assert set(ledger.failed) == {one.key for one in bad}


class Losing(FakeModelHost):
    """Loses its device with every fusion."""

    def fuse(self, _fusion: Fusion, _read_reference: ReadReference) -> FusedFile:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_fusion_that_loses_its_device_again_and_again_is_found(tmp_path):
    storage = LocalStorage(tmp_path)
    fusion = fusion_of(fused_row(0), dtype="float32")
    assert fusion is not None
    into = CommitFused(
        storage=storage, run_id="run", fence=None, references=References(storage=None)
    )
    for _ in range(3):
        with pytest.raises(RuntimeError, match="CUDA error"):
            fuse_one(fusion, Losing(), into, into.attempts)
    receipt = fuse_one(fusion, Losing(), into, into.attempts)
    assert receipt.failure is not None
    assert "died 3 times" in receipt.failure.message


class StoreAway(FakeModelHost):
    """Finds the store of references away."""

    def fuse(self, _fusion: Fusion, _read_reference: ReadReference) -> FusedFile:
        raise StorageError("the store is away")


def test_a_store_that_is_away_is_no_fusion_s_fault(tmp_path):
    fusion = fusion_of(fused_row(0), dtype="float32")
    assert fusion is not None
    storage, references = LocalStorage(tmp_path), References(storage=None)
    into = CommitFused(storage=storage, run_id="run", fence=None, references=references)
    with pytest.raises(StorageError, match="away"):
        fuse_one(fusion, StoreAway(), into, into.attempts)


def test_an_adapter_under_another_name_is_damage(tmp_path):
    storage = LocalStorage(tmp_path)
    one, other = (fusion_of(fused_row(0, *names), dtype="f") for names in (("a", "b"), ("a", "c")))
    assert one is not None
    assert other is not None
    storage.put(fused_name(one.key), fused_adapter(other))
    with pytest.raises(DamagedFileError, match="holds another adapter"):
        check_fused(storage, fused_name(one.key))


def test_claims_of_adapters_that_are_there_are_garbage(tmp_path):
    make(tmp_path / "out", [fused_row(0)], tmp_path / "log")
    marks = find_garbage(LocalStorage(tmp_path / "out")).marks
    assert any(key_of(fused_row(0)) in mark for mark in marks)


def test_the_key_holds_all_that_decides_the_adapter_and_nothing_else():
    one = fused_row(0)
    same = [
        fused_row(7, prompt="another", width=16, negative_prompt="blurry"),
        replace(one, sampler=SamplerConfig(mask_threshold=0.9)),
        replace(one, loras=(*one.loras, lora("ink", kind="style"))),
        replace(one, loras=(replace(one.loras[0], name="renamed", uri="/x"), one.loras[1])),
    ]
    assert {key_of(each) for each in [one, *same]} == {key_of(one)}
    first, second = one.loras
    others = [
        fused_row(0, method="custom-diffusion"),
        replace(one, sampler=SamplerConfig(fuse_cutoff=0.1)),
        replace(one, base_model_digest="cd" * 32),
        replace(one, loras=(second, first)),
        *(
            replace(one, loras=(replace(first, **change), second))
            for change in ({"weight": 0.5}, {"digest": "00"}, {"trigger": "x"}, {"subject": "y"})
        ),
    ]
    keys = [key_of(one), *map(key_of, others)]
    assert len(set(keys)) == len(keys)
    half = fusion_of(one, dtype="float16")
    assert half is not None
    assert half.key != key_of(one)


def test_settings_of_fusing_are_in_the_keys_of_rows_that_fuse_alone():
    plain = row(0, base_model_digest=BASE_MODEL)
    changed = SamplerConfig(fuse_cutoff=0.5, ziplora_steps=7, fuse_prompts=("a {}",))
    for method, differs in (("merge", False), ("ziplora", True)):
        one = replace(plain, method=method)
        other = replace(one, sampler=changed)
        assert (row_key(one, dtype="float32") != row_key(other, dtype="float32")) is differs


class Killed(BaseException):
    """Stands for SIGKILL: no handler of the product catches it."""


POINTS = {
    "before the claim": ("put_if_absent", "claims/", "before"),
    "after the claim": ("put_if_absent", "claims/", "after"),
    "after the mark of the try": ("mark", "attempts/", "after"),
    "before the commit": ("put_if_absent", "fused/", "before"),
    "after the commit": ("put_if_absent", "fused/", "after"),
    "before the first image": ("put_all", "images/", "before"),
}


class DyingStorage(LocalStorage):
    """A disk whose process dies at a point: from then on nothing of it is written."""

    def __init__(self, root: Path, point: str) -> None:
        super().__init__(root)
        self._point = POINTS[point]
        self.is_dead = False
        self._passed = 0

    def _at(self, call: str, name: str, when: str) -> None:
        if self.is_dead:
            raise Killed
        if (call, when) == (self._point[0], self._point[2]) and name.startswith(self._point[1]):
            self._passed += 1
            # The second time, so that one adapter is there already where it can be.
            if self._passed == (1 if call == "put_all" else 2):
                self.is_dead = True
                raise Killed

    def put(self, name: str, content: bytes) -> None:
        self._at("put", name, "before")
        super().put(name, content)

    def put_all(self, files: Mapping[str, bytes]) -> None:
        self._at("put_all", min(files, default=""), "before")
        super().put_all(files)

    def put_if_absent(self, name: str, content: bytes) -> bool:
        self._at("put_if_absent", name, "before")
        is_ours = super().put_if_absent(name, content)
        self._at("put_if_absent", name, "after")
        return is_ours

    def mark(self, name: str) -> None:
        self._at("mark", name, "before")
        super().mark(name)
        self._at("mark", name, "after")

    def delete(self, name: str) -> None:
        self._at("delete", name, "before")
        super().delete(name)

    def walk(self, folder: str) -> Iterator[str]:
        self._at("walk", folder, "before")
        return super().walk(folder)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("point", POINTS)
def test_what_was_committed_before_a_kill_is_never_made_again(tmp_path, point):
    log, out = tmp_path / "log", tmp_path / "out"
    storage = DyingStorage(out, point)
    with pytest.raises(Killed):
        make(out, MANIFEST, log, storage=storage)
    committed = fused_keys(LocalStorage(out))
    begun = Counter(fusions_of(log))
    make(out, MANIFEST, log)
    again = Counter(fusions_of(log)) - begun
    assert not committed & again.keys()
    assert max(again.values(), default=0) <= 1
    assert fused_keys(LocalStorage(out)) == {key_of(one) for one in MANIFEST[:4]}
    assert read_ledger(LocalStorage(out)).made == {one.key for one in MANIFEST}


def test_another_live_run_makes_it_and_this_one_waits(tmp_path):
    shared = LocalStorage(tmp_path / "shared")
    fusion = fusion_of(fused_row(0), dtype="float32")
    assert fusion is not None
    claimed = threading.Event()

    def other_run() -> None:
        with present(shared, "other", PATIENT):
            name = f"claims/{fusion.key}/000000001.json"
            shared.put_if_absent(name, encode_json({"run_id": "other"}))
            claimed.set()
            threading.Event().wait(0.5)
            shared.put_if_absent(fused_name(fusion.key), fused_adapter(fusion))
            threading.Event().wait(0.3)

    thread = threading.Thread(target=other_run)
    thread.start()
    claimed.wait()
    options = {"fused_storage": shared, "lease_times": PATIENT}
    watcher = make(tmp_path / "out", [fused_row(0)], tmp_path / "log", **options)
    thread.join()
    assert fusions_of(tmp_path / "log") == []
    assert any("waiting for 1 fused adapter(s)" in note for note in watcher.notes)
    assert read_ledger(LocalStorage(tmp_path / "out")).made == {fused_row(0).key}
