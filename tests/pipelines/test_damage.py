"""A damaged file of any kind is named, nothing wrong is passed on, and a repair makes it whole.

Every kind of file is damaged in every way, and every command is run on it. ``make test`` runs some
of the commands on most kinds; the whole product, which also writes a table, is in ``make faults``.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from damage_commands import COMMANDS, LOOKERS, Case, Outcome, Run, run_command
from damage_kit import DAMAGES, KILLED_KINDS, WHOLE_KINDS, contents, places, put_back
from damage_phrases import phrase
from damage_promises import wrong_answer
from damage_results import wrong_results
from damage_world import build_worlds, quick
from faults.damage_table import Answer
from faults.table import tables_of

ALL = tuple(COMMANDS)
READERS = (*LOOKERS, "table", "report")
"""These run one after another on one copy, in this order."""

CLOSELY = ("unit", "image")
"""Kinds that ``make test`` damages in every way; of the others it takes two ways in turn."""

IN_TURN = [
    (kind, damage)
    for place, kind in enumerate(WHOLE_KINDS)
    for number, damage in enumerate(DAMAGES)
    if kind in CLOSELY or (number - place) % len(DAMAGES) < 2
]

OF_THE_KILLED = ("run record", "lease", "plan of images", "mark")
CONTINUING = ("compose", "status", "verify --repair", "catalog", "gc --delete")
A_CASE = 3


class Outputs:
    """Copies of the undamaged outputs, and what commands say of them."""

    def __init__(self, folder: Path) -> None:
        self._worlds = build_worlds(folder)
        self._places = {name: places(world) for name, world in self._worlds.items()}
        self._folders = {name: contents(world.folder) for name, world in self._worlds.items()}
        self._pristine = {name: contents(world.out) for name, world in self._worlds.items()}
        self._usual: dict[tuple[str, str], Run] = {}

    def case(self, world: str, kind: str, damage: str) -> Case:
        return Case(world, kind, damage, self._places[world][kind], self._pristine[world])

    def outcomes(self, case: Case, commands: Collection[str]) -> Iterator[Outcome]:
        """Damage a file and yield what each command does; none if the damage changes nothing."""
        world = self._worlds[case.world]
        usual = {command: self._usually(case, command) for command in commands}
        readers = [command for command in READERS if command in commands]
        for group in (readers, *([command] for command in commands if command not in READERS)):
            if case.damage_it(world):
                for command in group:
                    run = run_command(command, world, case.place)
                    yield Outcome(case, run, usual[command])
            put_back(world.folder, self._folders[case.world])

    def _usually(self, case: Case, command: str) -> Run:
        key = case.world, command
        if key not in self._usual:
            world = self._worlds[case.world]
            self._usual[key] = run_command(command, world, case.place)
            put_back(world.folder, self._folders[case.world])
        return self._usual[key]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Outputs:
    return Outputs(tmp_path_factory.mktemp("damage"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick(monkeypatch)


def broken(outcomes: Iterable[Outcome]) -> list[str]:
    """Return what does not hold, with what the command said."""
    return [
        f"{outcome.run.command}, {outcome.case.kind} {outcome.case.damage}: {problem}\n"
        f"{outcome.run.said.strip()}\n"
        for outcome in outcomes
        for problem in (*wrong_answer(outcome), *wrong_results(outcome))
    ]


def in_turn(commands: Sequence[str], count: int, turn: int) -> list[str]:
    return [commands[(count * turn + number) % len(commands)] for number in range(count)]


@pytest.mark.parametrize(("kind", "damage"), IN_TURN)
def test_a_damaged_file_is_named_and_nothing_wrong_is_passed_on(
    outputs: Outputs, kind: str, damage: str
):
    turn = WHOLE_KINDS.index(kind) + list(DAMAGES).index(damage)
    commands = in_turn(ALL, 2 * A_CASE if kind in CLOSELY else A_CASE, turn)
    assert broken(outputs.outcomes(outputs.case("whole", kind, damage), commands)) == []


@pytest.mark.parametrize("damage", ["a bit flipped"])
@pytest.mark.parametrize("kind", OF_THE_KILLED)
def test_a_run_that_was_killed_is_continued_past_damage(outputs: Outputs, kind: str, damage: str):
    turn = OF_THE_KILLED.index(kind) + list(DAMAGES).index(damage)
    commands = in_turn(CONTINUING, 2, turn)
    assert broken(outputs.outcomes(outputs.case("killed", kind, damage), commands)) == []


@pytest.mark.faults
@pytest.mark.parametrize(
    ("world", "kind"),
    [*(("whole", kind) for kind in WHOLE_KINDS), *(("killed", kind) for kind in KILLED_KINDS)],
)
def test_every_command_on_every_damage(
    outputs: Outputs, request: pytest.FixtureRequest, world: str, kind: str
):
    tables = tables_of(request.config)
    found: list[str] = []
    for damage in DAMAGES:
        phrases: dict[str, str] = {}
        for outcome in outputs.outcomes(outputs.case(world, kind, damage), ALL):
            # Before its results are looked at: that runs other commands there.
            phrases[outcome.run.command] = phrase(outcome)
            found += broken([outcome])
        tables.answers.extend(
            Answer(command, kind, damage, world == "killed", phrases.get(command))
            for command in ALL
        )
    tables.write()
    assert found == []
