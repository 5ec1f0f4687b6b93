"""Commands of the product on one disk, by a user who remembers what they said.

What a user has learned (a row's receipt, an edition's number) is noted in the log of the disk, so
that it must hold after every later power cut.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from engine_kit import BASE_MODEL, SAMPLER, SIDE_PX, FakeModelHost, Watcher, request
from output_checks import OUTPUTS, Fact, named_edition

from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.ledger.ledger import survey
from pipelines.outputs.edition import edition_table
from pipelines.outputs.editions import publish_edition
from pipelines.planning.references import ReferenceSettings
from pipelines.run import compose_rows
from pipelines.session.resources import Resources
from pipelines.storage.local import LocalStorage
from pipelines.units.output_table import read_output_rows
from pipelines.units.receipts import Receipt
from pipelines.upkeep.garbage import remove_garbage
from pipelines.upkeep.repair import repair_output
from pipelines.upkeep.verify import damaged_files

__all__ = ["REFERENCES", "Command", "Notes", "World", "collect", "compose", "publish", "repair"]

TIMES = LeaseTimes(beat_s=1000.0, silence_s=0.0)
"""A run is taken for dead as soon as there is another, so nobody waits for the one that was cut."""

REFERENCES = {BASE_MODEL: ReferenceSettings(num_references=1, sampler=SAMPLER, side_px=SIDE_PX)}


class Notes(Protocol):
    """Where facts are kept that must hold from now on."""

    def note(self, value: Fact) -> None:
        """Keep a fact."""
        ...


@dataclass
class World:
    """A disk with an output, and what is made on it.

    Attributes:
        disk: A folder.
        notes: What its user has learned.
        sampled: Prompt and seed of every row that the engine was asked for.
    """

    disk: Path
    notes: Notes | None = None
    sampled: list[tuple[str, int]] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.disk / "out"

    def storage(self, output: str = "") -> LocalStorage:
        return LocalStorage(self.out / output)

    def learn(self, fact: Fact) -> None:
        if self.notes is not None:
            self.notes.note(fact)

    def learn_all(self) -> None:
        """Learn of every committed row, of the latest edition, and of what is damaged."""
        if self.notes is None:
            return
        self.learn(("edition", "", named_edition(self.storage())))
        for output in OUTPUTS:
            storage = self.storage(output)
            ledger = survey(storage)
            for damage in (*ledger.damaged, *damaged_files(storage)):
                digest = hashlib.sha256(storage.read(damage.name)).hexdigest()
                self.learn(("kept", output, digest))
            for key in ledger.made:
                self.learn(("made", output, key))
            for key in ledger.failed:
                self.learn(("failed", output, key))


Command = Callable[[World], None]


class User(Watcher):
    """Learns of every row that is committed when a receipt comes."""

    def __init__(self, world: World, *, interrupts: bool) -> None:
        super().__init__()
        self._world = world
        self._interrupts = interrupts

    def stored(self, receipt: Receipt) -> None:
        super().stored(receipt)
        self._world.learn_all()
        if self._interrupts:
            raise KeyboardInterrupt


class ModelHost(FakeModelHost):
    """Writes down what it is asked for."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def compose(self, rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        self._world.sampled += [(row.prompt, row.seed) for row in rows]
        return [self._one(row, slot, len(rows)) for slot, row in enumerate(rows)]


def compose(
    manifest: Sequence[Row],
    *,
    rows_per_unit: int = 2,
    references: bool = False,
    interrupted: bool = False,
) -> Command:
    """Return the command that makes ``manifest``; interrupted, it ends after its first unit."""

    def command(world: World) -> None:
        asked = request(
            world.out,
            manifest,
            references=REFERENCES if references else {},
            load_model_host=lambda _shares: ModelHost(world),
            resources=Resources(rows_per_unit=rows_per_unit),
            lease_times=TIMES,
        )
        try:
            compose_rows(asked, User(world, interrupts=interrupted), address=None)
        except KeyboardInterrupt:
            assert interrupted

    return command


def publish(manifest: Sequence[Row]) -> Command:
    """Return the command that publishes ``manifest`` as an edition and drops the ones before."""

    def command(world: World) -> None:
        storage = world.storage()
        table = read_output_rows(storage, ["key", "image_sha256"])
        digests = dict(
            zip(table["key"].to_pylist(), table["image_sha256"].to_pylist(), strict=True)
        )
        published = publish_edition(
            storage,
            edition_table(manifest, digests),
            read_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            run_id="r",
            num_missing=0,
            keep=0,
            note=ignore,
        )
        world.learn(("edition", "", published.number))

    return command


def ignore(_text: str) -> None:
    """Take a note."""


def collect(world: World) -> None:
    """Remove what nothing refers to."""
    remove_garbage(world.storage(), times=TIMES, note=ignore)


def repair(world: World) -> None:
    """Restore what can be restored and set aside what cannot."""
    repair_output(world.storage(), times=TIMES, note=ignore)
    world.learn(("repaired", "", 0))
