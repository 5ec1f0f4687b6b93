"""Damage of everything at once, and of every bit of a small file."""

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from damage_commands import COMMANDS, MAKERS, say
from damage_kit import DAMAGES, Place, contents, places
from damage_world import World, build_worlds, quick

from jobs.pictures.picture import PictureError, read_picture
from pipelines.leases.lease_record import LeaseRecord, read_lease
from pipelines.ledger.run_record import read_run_records
from pipelines.outputs.editions import LATEST
from pipelines.storage.local import LocalStorage
from pipelines.units.output_files import DamagedFileError, read_json

NUM_FLIPS = 300


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, World]:
    return build_worlds(tmp_path_factory.mktemp("damage"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


def damage_everything(world: World, damage: str) -> None:
    """Damage every file of an output; the donor of each is the next one, as it was."""
    before = contents(world.out)
    names = sorted(before)
    for name, donor in zip(names, [*names[1:], names[0]], strict=True):
        path, other = world.out / name, world.folder / "donor"
        other.write_bytes(before[donor])
        DAMAGES[damage](path, other)


def run(command: str, world: World, place: Place) -> tuple[int | None, str]:
    code, said = say(COMMANDS[command], world, place)
    assert code in (0, 1, 2), f"{command}:\n{said}"
    return code, said


@pytest.mark.parametrize("damage", DAMAGES)
def test_of_an_output_that_is_all_damaged_every_row_is_made_again_after_a_repair(
    worlds: dict[str, World], tmp_path: Path, damage: str
):
    image = places(worlds["killed"])["image"]
    units = [name for name in contents(worlds["killed"].out) if name.startswith("rows/")]
    world = worlds["killed"].copy(tmp_path / "killed")
    damage_everything(world, damage)
    for command in COMMANDS:
        if command == "verify --repair":
            continue
        code, said = run(command, world, image)
        if damage != "missing" and command in ("plan", *MAKERS):
            assert code == 2, said
            assert [name for name in units if name not in said] == []
        if damage == "missing" and command in MAKERS:
            world = worlds["killed"].copy(tmp_path / command)
            damage_everything(world, damage)
    code, said = run("verify --repair", world, image)
    # Where all is gone there is nothing to hold, and nothing is wrong either.
    assert code == (1 if damage == "missing" else 0), said
    for command in ("compose", "status", "verify", "catalog", "table", "report", "export"):
        code, said = run(command, world, image)
        assert code == 0, f"{command}:\n{said}"


def flipped(content: bytes) -> Iterator[bytes]:
    """Yield the content with each of its bits flipped."""
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            yield bytes(changed)


def latest_of(storage: LocalStorage) -> dict[str, Any]:
    return read_json(storage, LATEST, dict)


def last_record(storage: LocalStorage) -> dict[str, Any]:
    return read_run_records(storage)[-1]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("latest.json", latest_of),
        ("lease", partial(read_lease, epoch=3)),
        ("run record", last_record),
    ],
)
def test_no_flipped_bit_of_a_json_file_is_taken_for_what_was_written(
    worlds: dict[str, World], tmp_path: Path, kind: str, read: Callable[[LocalStorage], Any]
):
    world = worlds["whole"].copy(tmp_path / "whole")
    path, storage = world.out / places(world)[kind].name, LocalStorage(world.out)
    written, content = read(storage), path.read_bytes()
    everyone = list(flipped(content))
    for changed in random.Random(0).sample(everyone, min(len(everyone), 3000)):
        path.write_bytes(changed)
        try:
            found = read(storage)
        except DamagedFileError:
            continue
        if isinstance(found, LeaseRecord):
            assert found.is_damaged or found == written, changed
        else:
            # The name of the digest may be what is damaged.
            assert {name: found[name] for name in written} == written, changed


def test_a_picture_of_which_a_bit_flipped_is_the_same_or_no_picture(
    worlds: dict[str, World], tmp_path: Path
):
    world = worlds["whole"]
    content = (world.out / places(world)["image"].name).read_bytes()
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    committed = read_picture(path)
    chunk = content.index(b"IDAT")
    header = [*flipped(content[chunk - 4 : chunk + 4])]
    everyone = [content[: chunk - 4] + each + content[chunk + 4 :] for each in header]
    everyone += random.Random(0).sample(list(flipped(content)), NUM_FLIPS)
    for changed in everyone:
        path.write_bytes(changed)
        try:
            found = read_picture(path)
        except PictureError:
            continue
        assert found.recipe == committed.recipe
        assert found.parameters == committed.parameters
        assert (found.pixels == committed.pixels).all()
