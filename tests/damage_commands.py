"""Every command that reads an output, run on one with a damaged file, and what came of it."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from damage_kit import DAMAGES, Place, contents
from damage_world import TIMES, World

import jobs.commands.catalog
import jobs.commands.compose
import jobs.commands.plan
from jobs.commands.export import export
from jobs.commands.gc import gc
from jobs.commands.render import render
from jobs.commands.report import report
from jobs.commands.show import show
from jobs.commands.status import status
from jobs.commands.table import table
from jobs.commands.validate import validate
from jobs.commands.verify import verify
from pipelines.storage.local import LocalStorage

__all__ = ["COMMANDS", "LOOKERS", "MAKERS", "Case", "Outcome", "Run", "run_command", "say"]

Command = Callable[[World, Place], int]


@dataclass(frozen=True)
class Case:
    """A damaged file.

    Attributes:
        world: ``whole`` or ``killed``.
        kind: Of the file.
        damage: What became of it.
        place: Where the file is.
        pristine: Every file of the output before the damage.
    """

    world: str
    kind: str
    damage: str
    place: Place
    pristine: Mapping[str, bytes]

    def damage_it(self, world: World) -> bool:
        """Damage the file in a copy; return whether that changes it: an empty one cannot be cut."""
        path = world.out / self.place.name
        DAMAGES[self.damage](path, world.out / self.place.donor)
        return not path.exists() or path.read_bytes() != self.pristine[self.place.name]


@dataclass(frozen=True)
class Run:
    """What a command did.

    Attributes:
        command: What was run.
        world: Where.
        code: The exit code; None after an exception.
        said: Both outputs, with the traceback of an exception.
        before: Every file of the output when the command began.
        after: And when it had ended.
        read: Files that were opened, with their output.
        listed: Folders whose names were listed, with their output.
        sized: Folders whose sizes were listed, with their output.
    """

    command: str
    world: World
    code: int | None
    said: str
    before: Mapping[str, bytes]
    after: Mapping[str, bytes]
    read: frozenset[str]
    listed: frozenset[str]
    sized: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """What a command did about a damaged file, and what it does where nothing is damaged."""

    case: Case
    run: Run
    usual: Run

    @property
    def name(self) -> str:
        """The damaged file's name in the output."""
        return self.case.place.name

    @property
    def is_named(self) -> bool:
        """Whether the user learns which file it is, perhaps by its place and its name in that."""
        if self.name in self.usual.said:
            return False
        folder, _, inner = self.name.partition("/rows/")
        is_split = bool(inner) and folder in self.run.said and f"rows/{inner}" in self.run.said
        return self.name in self.run.said or is_split

    @property
    def keeps_size(self) -> bool:
        """Whether the file is there and as long as it was."""
        return len(self.run.before.get(self.name, b"")) == len(self.case.pristine[self.name])

    @property
    def was_read(self) -> bool:
        is_picture = self.run.command in ("show", "render") and "images/" in self.name
        return is_picture or f"{self.run.world.out}/{self.name}" in self.run.read

    @property
    def was_listed(self) -> bool:
        return f"{self.run.world.out}/{self.name}".rpartition("/")[0] in self.run.listed

    @property
    def was_sized(self) -> bool:
        place = f"{self.run.world.out}/{self.name}"
        return any(place.startswith(f"{folder}/") for folder in self.run.sized)


def _on_output(command: Callable[..., int], **options: Any) -> Command:
    return lambda world, _place: command(str(world.out), **options)


def _on_image(command: Callable[[World, Path], int]) -> Command:
    """Return the command on the damaged file, or on some image if that is none."""

    def run(world: World, place: Place) -> int:
        if "images/" in place.name:
            return command(world, world.out / place.name)
        return command(world, min(world.out.glob("images/*/*.png")))

    return run


COMMANDS: Mapping[str, Command] = {
    "validate": lambda world, _: validate(world.job),
    "plan": lambda world, _: jobs.commands.plan.plan(world.job),
    "status": _on_output(status),
    "verify": _on_output(verify),
    "gc": _on_output(gc),
    "show": _on_image(lambda _, image: show(image)),
    "render": _on_image(lambda world, image: render(image, out=world.folder / "again.png")),
    "export": lambda world, _: export(str(world.out), webdataset=str(world.folder / "shards")),
    "table": _on_output(table),
    "report": _on_output(report),
    "compose": lambda world, _: jobs.commands.compose.compose(world.job),
    "retry": lambda world, _: jobs.commands.compose.compose(world.job, only_failed=True),
    "catalog": lambda world, _: jobs.commands.catalog.catalog(
        world.job, make_request=jobs.commands.compose.run_request
    ),
    "gc --delete": _on_output(gc, delete=True, times=TIMES),
    "verify --repair": _on_output(verify, repair=True, times=TIMES),
}

LOOKERS = ("validate", "plan", "status", "verify", "gc", "show", "render", "export")
"""Commands that change nothing in an output; ``table`` and ``report`` write what they say."""

MAKERS = ("compose", "retry", "catalog")


def run_command(command: str, world: World, place: Place) -> Run:
    """Run a command on an output; ``place`` is what ``show`` and ``render`` are asked for."""
    before = contents(world.out)
    with _watched() as (read, listed, sized):
        code, said = say(COMMANDS[command], world, place)
    return Run(
        command=command,
        world=world,
        code=code,
        said=said,
        before=before,
        after=contents(world.out),
        read=frozenset(read),
        listed=frozenset(listed),
        sized=frozenset(sized),
    )


def say(command: Callable[..., int], *arguments: Any, **named: Any) -> tuple[int | None, str]:
    """Return the exit code, None after an exception, and both outputs of a command."""
    code = None
    with redirect_stdout(StringIO()) as said, redirect_stderr(said):
        try:
            code = command(*arguments, **named)
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            traceback.print_exc(file=said)
    return code, said.getvalue()


@contextmanager
def _watched() -> Iterator[tuple[set[str], set[str], set[str]]]:
    """Gather what is opened, and the folders whose names or sizes are listed meanwhile."""
    read: set[str] = set()
    listed: set[str] = set()
    sized: set[str] = set()

    def noting(into: set[str], method: Callable[..., Any]) -> Callable[..., Any]:
        def noted(storage: LocalStorage, name: str, *more: str) -> Any:
            into.add(f"{storage.uri}/{name}")
            return method(storage, name, *more)

        return noted

    with pytest.MonkeyPatch.context() as patch:
        watched = {"read": read, "open": read, "list": listed, "sizes": sized}
        for name, into in watched.items():
            patch.setattr(LocalStorage, name, noting(into, getattr(LocalStorage, name)))
        yield read, listed, sized
