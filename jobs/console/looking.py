"""Commands that only look at an output: they name damage, use the rest, and then end with 1."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from jobs.exit_code import ALL_MADE, SOME_FAILED, command
from jobs.notes import note
from pipelines.units.damages import Damages

Given = ParamSpec("Given")


def looking(work: Callable[Concatenate[Damages, Given], str]) -> Callable[Given, int]:
    """Decorate a command that works on what can be read; it returns what is printed last.

    Its first argument is where it notes damage. The exit code is 0, 1 if something damaged was left
    out or the place cannot be used now, 2 if the same command will be refused again.
    """

    @command()
    @wraps(work)
    def run(*arguments: Given.args, **options: Given.kwargs) -> int:
        damages = Damages(note=note)
        print(work(damages, *arguments, **options))
        if damages.left_out:
            note(f"{len(damages.left_out):,} damaged file(s) were left out")
            return SOME_FAILED
        return ALL_MADE

    return run
