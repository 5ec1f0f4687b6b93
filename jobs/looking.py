"""Commands that only look at an output: they name damage, use the rest, and then end with 1."""

import sys
from collections.abc import Callable

from jobs.evaluated import NoOutputError
from jobs.exit_code import ALL_MADE, BAD_INPUT, EXPECTED_ERRORS, SOME_FAILED, code_of_error
from pipelines.damages import Damages

__all__ = ["look"]


def look(at: Callable[[Damages], str]) -> int:
    """Run a command on what can be read; print what it says and return the exit code.

    Args:
        at: The command; it gets where damage is noted, and returns its last lines.

    Returns:
        0, 1 if something damaged was left out or the place cannot be used now, 2 if the same
        command will be refused again.
    """
    damages = Damages(note=lambda text: print(text, file=sys.stderr))
    try:
        print(at(damages))
    except NoOutputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except EXPECTED_ERRORS as error:
        print(error, file=sys.stderr)
        return code_of_error(error)
    if damages.left_out:
        print(f"{len(damages.left_out):,} damaged file(s) were left out", file=sys.stderr)
        return SOME_FAILED
    return ALL_MADE
