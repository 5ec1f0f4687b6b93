"""What becomes of Ray's many exceptions: one error, whose text says what to do.

Ray raises whatever its parts raise: ``RuntimeError``, ``TimeoutError``, plain ``Exception``, errors
of its own. Which of them it was matters less than what its words and its causes say.
"""

import os
import re
from collections.abc import Iterator

from clora_core.recipe.errors import CloraError
from manifests.text.text_rules import one_line

MAX_WORDS = 300
_TRACEBACK = "Traceback (most recent call last):"
_AUTHENTICATION = "AuthenticationError"
"""Ray's class, which also comes as text only."""


class ClusterError(CloraError):
    """There is no cluster to work on now; the message says which, why, and the way out."""

    exit_code = 1


class ClusterRefusesError(ClusterError):
    """There would be none again: no such address, another token, other versions."""

    exit_code = 2


def first_words(error: BaseException) -> str:
    """Return the first line of what an exception says, or its name if it says nothing.

    Of a traceback that Ray has put into its words only the last line counts.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    before, found, _ = lines[0].partition(_TRACEBACK)
    return one_line(f"{before}{lines[-1]}" if found else lines[0], max_characters=MAX_WORDS)


def not_reached(place: str, error: Exception, *, way_home: str) -> ClusterError:
    """Return why a cluster cannot be used.

    Args:
        place: Its address, as sentences name it.
        error: What Ray, or the system, raised.
        way_home: How to do without a cluster.
    """
    if isinstance(error, ClusterError):
        return error
    causes = list(_causes(error))
    if any(_AUTHENTICATION in f"{type(cause).__name__}: {cause}" for cause in causes):
        return token_refused(place)
    if any("version mismatch" in str(cause).lower() for cause in causes):
        return ClusterRefusesError(
            f"the Ray cluster at {place} {_other_versions(causes)}; install the same versions of "
            "Ray and Python on both sides"
        )
    return ClusterError(
        f"no Ray cluster answers at {place} ({_all_words(causes)}); start one with "
        f"`ray start --head`, correct the address, or {way_home}"
    )


def token_refused(place: str) -> ClusterRefusesError:
    """Return what to do about a token that is missing here, or is another than the cluster's."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return ClusterRefusesError(
            f"the Ray cluster at {place} wants a token, and none is sent from here; set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a copy of the cluster's token file"
        )
    return ClusterRefusesError(
        f"the Ray cluster at {place} refuses this machine's token; set RAY_AUTH_TOKEN_PATH to a "
        "copy of the file that the cluster was started with, and unset RAY_AUTH_TOKEN, which "
        "comes before it"
    )


def _other_versions(causes: list[BaseException]) -> str:
    """Return what each side runs, in Ray's figures."""
    figures = [
        re.findall(r"^\s*(?:Ray|Python): (\S+)$", str(cause), re.MULTILINE) for cause in causes
    ]
    four = next((found for found in figures if len(found) == 4), None)
    if four is None:
        return f"runs other versions ({_all_words(causes)})"
    ray, python, own_ray, own_python = (one_line(part, max_characters=40) for part in four)
    return f"runs Ray {ray} with Python {python}, and this machine Ray {own_ray} with {own_python}"


def _all_words(causes: list[BaseException]) -> str:
    return ": ".join(dict.fromkeys(first_words(cause) for cause in causes))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came of, the last first."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
