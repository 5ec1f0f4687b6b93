"""What ``clora verify --repair`` restores, sets aside, and never loses."""

from pathlib import Path

import pytest
from engine_kit import BAD_ROW, Watcher, request, row, rows
from inline_engine import run_inline

from jobs.commands.verify import verify
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.leases.lease import acquire
from pipelines.leases.lease_record import LeaseRecord, encode_lease, latest_lease, lease_name
from pipelines.ledger.account import Account
from pipelines.ledger.ledger import read_ledger
from pipelines.outputs.editions import LATEST, edition_name
from pipelines.run import compose_rows
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import image_name

TIMES = LeaseTimes(beat_s=0.02, silence_s=0.2)
MANIFEST = [*rows(7), row(20, prompt=BAD_ROW)]


class Output:
    """An output of two units with references, made by the whole engine without Ray."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "calls"
        self.storage = LocalStorage(folder / "out")

    def compose(self) -> Account:
        asked = request(self.folder / "out", MANIFEST, log=self.log, lease_times=TIMES)
        return compose_rows(asked, Watcher(), address=None)

    def repair(self) -> int:
        return verify(self.storage.uri, repair=True, times=TIMES)

    def num_sampled(self) -> int:
        return sum(len(line.split()) - 1 for line in self.log.read_text().splitlines())

    def files(self) -> dict[str, bytes]:
        return {name: self.storage.read(name) for name in self.storage.walk("")}


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Output:
    run_inline(monkeypatch)
    made = Output(tmp_path)
    account = made.compose()
    assert (account.num_made, account.num_failed) == (7, 1)
    return made


def test_a_whole_output_is_left_as_it_is(output: Output, capsys: pytest.CaptureFixture[str]):
    before = output.files()
    assert output.repair() == 0
    assert "nothing to repair" in capsys.readouterr().out
    after = output.files()
    (added,) = set(after) - set(before)
    assert added.startswith("leases/")
    assert {name: after[name] for name in before} == before


def test_images_are_restored_byte_for_byte_from_their_rows(
    output: Output, capsys: pytest.CaptureFixture[str]
):
    storage = output.storage
    missing, empty, flipped = (image_name(row(seed).key) for seed in range(3))
    reference = next(name for name in storage.walk("references") if name.endswith(".png"))
    before = output.files()
    storage.delete(missing)
    storage.put(empty, b"")
    storage.put(flipped, before[flipped][:-20] + b"x" + before[flipped][-19:])
    storage.delete(reference)
    assert verify(storage.uri) == 1
    assert "--repair` restores it" in capsys.readouterr().err
    assert output.repair() == 0
    said = capsys.readouterr().out
    for name in (missing, empty, flipped, reference):
        assert f"restored    {storage.uri}/{name}" in said
        assert storage.read(name) == before[name]


def test_a_damaged_unit_is_set_aside_whole_and_its_rows_are_made_again_once(
    output: Output, capsys: pytest.CaptureFixture[str]
):
    storage = output.storage
    name, _ = storage.list("rows", ".parquet")
    content = storage.read(name)[:-30]
    storage.put(name, content)
    sampled = output.num_sampled()
    assert output.repair() == 0
    said = capsys.readouterr().out
    assert f"set aside   {storage.uri}/{name}: it cannot be read (cut off" in said
    assert "the next `clora compose` makes the rows of 1 unit(s) again" in said
    (aside,) = storage.walk("damaged")
    assert aside.endswith(f"-repair/{name}")
    assert f"now {storage.uri}/{aside}" in said
    assert storage.read(aside) == content
    account = output.compose()
    assert account.num_missing == account.num_doubled == 0
    assert len(read_ledger(storage).made) == 7
    assert output.num_sampled() - sampled <= 4 + 1, "the unit's rows, and the bad one's next try"
    assert verify(storage.uri) == 0


def test_no_worker_of_an_earlier_run_takes_the_place_of_a_unit_that_was_set_aside(output: Output):
    storage = output.storage
    name, _ = storage.list("rows", ".parquet")
    content = storage.read(name)
    storage.put(name, b"")
    assert output.repair() == 0
    assert not storage.put_if_absent(name, content), "a worker that wakes up now comes too late"
    output.compose()
    assert read_ledger(storage).num_doubled == 0


@pytest.mark.parametrize("content", [b"", b'{"epoch": 1}'])
def test_small_files_are_set_aside_and_copies_written_again(
    output: Output, capsys: pytest.CaptureFixture[str], content: bytes
):
    storage = output.storage
    names = [storage.list(folder, ".json")[0] for folder in ("runs", "leases")]
    names += sorted(name for name in storage.walk("plans") if "/images" in name)[:2]
    names += [*storage.list("manifests", ""), edition_name(3), LATEST]
    (errors,) = storage.list("errors", ".parquet")
    before = storage.read(errors)
    for name in (*names, errors):
        storage.put(name, content)
    assert verify(storage.uri) == 1
    assert output.repair() == 0
    said = capsys.readouterr()
    for name in (*names, errors):
        assert f"{storage.uri}/{name} is damaged" in said.err
        assert f"set aside   {storage.uri}/{name}" in said.out
    aside = {name.split("/", 2)[2] for name in storage.walk("damaged")}
    assert aside == {*names, errors}
    assert storage.read(errors) == before
    account = output.compose()
    assert (account.num_already_made, account.num_missing) == (7, 0)


def test_units_of_a_run_whose_lease_is_damaged_cannot_be_committed_after_the_repair(output: Output):
    """Nothing says whose the lease was, so no planned unit stays open."""
    storage = output.storage
    plan = next(name for name in storage.walk("plans") if name.endswith("/images-00000.parquet"))
    planned = storage.list("rows", ".parquet")
    for name in planned:
        storage.delete(name)
    epoch = latest_lease(storage)
    assert epoch is not None
    storage.put(lease_name(epoch.epoch), b"")
    assert storage.exists(plan)
    assert output.repair() == 0
    for name in planned:
        assert not storage.put_if_absent(name, b"its rows")
    output.compose()
    assert len(read_ledger(storage).made) == 7


def test_a_repair_is_refused_while_a_run_lives(output: Output, capsys: pytest.CaptureFixture[str]):
    output.storage.delete(image_name(row(0).key))
    with acquire(output.storage, "run-2", times=TIMES, note=print):
        long = LeaseTimes(beat_s=0.2, silence_s=20)
        assert verify(output.storage.uri, repair=True, times=long) == 1
    assert "is being written by run run-2" in capsys.readouterr().err
    assert not output.storage.exists(image_name(row(0).key))


@pytest.mark.parametrize("content", [b"", b"{}", b"not json"])
def test_a_run_takes_over_from_a_damaged_lease_after_its_silence(output: Output, content: bytes):
    storage = output.storage
    lease = latest_lease(storage)
    assert lease is not None
    storage.put(lease_name(lease.epoch), content)
    storage.delete(storage.list("rows", ".parquet")[0])
    account = output.compose()
    assert account.num_missing == 0
    assert len(read_ledger(storage).made) == 7


def test_a_damaged_lease_that_somebody_rewrites_is_of_a_run_that_lives(output: Output):
    storage = output.storage
    lease = latest_lease(storage)
    assert lease is not None
    damaged = latest_lease(storage)
    storage.put(lease_name(lease.epoch), b"")
    damaged = latest_lease(storage)
    assert damaged is not None
    assert (damaged.is_damaged, damaged.epoch) == (True, lease.epoch)
    storage.put(lease_name(lease.epoch), encode_lease(lease))
    assert latest_lease(storage) == lease
    assert (damaged.beat, damaged.beat_at) != (lease.beat, lease.beat_at)


def test_a_lease_with_one_changed_letter_is_no_lease(output: Output):
    storage = output.storage
    lease = latest_lease(storage)
    assert isinstance(lease, LeaseRecord)
    content = storage.read(lease_name(lease.epoch))
    storage.put(lease_name(lease.epoch), content.replace(b'"finished"', b'"stopped"'))
    changed = latest_lease(storage)
    assert changed is not None
    assert changed.is_damaged


def test_a_plan_with_a_missing_part_is_named_and_set_aside_once(
    output: Output, capfd: pytest.CaptureFixture[str]
):
    (part,) = (n for n in output.storage.walk("plans") if n.endswith("/images-00000.parquet"))
    record = part.replace("-00000.parquet", ".json")
    output.storage.delete(part)
    assert verify(output.storage.uri) == 1
    assert f"{output.storage.uri}/{record} is damaged: it names {part}, which is missing" in (
        capfd.readouterr().err
    )
    assert output.repair() == 0
    assert f"set aside   {output.storage.uri}/{record}" in capfd.readouterr().out
    assert verify(output.storage.uri) == 0


def test_the_record_of_a_plan_goes_with_a_damaged_part(output: Output):
    (part,) = (n for n in output.storage.walk("plans") if n.endswith("/images-00000.parquet"))
    output.storage.put(part, output.storage.read(part)[:-9])
    assert output.repair() == 0
    assert not output.storage.exists(part.replace("-00000.parquet", ".json"))
    assert verify(output.storage.uri) == 0
