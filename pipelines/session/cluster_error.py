"""What becomes of Ray's many exceptions: one error, whose text says what to do.

Ray raises whatever its parts raise: ``RuntimeError``, ``TimeoutError``, plain ``Exception``, errors
of its own. Which of them it was matters less than what its words and its causes say.
"""

from collections.abc import Iterator

from clora_core.recipe.errors import CloraError
from manifests.text.text_rules import one_line

MAX_WORDS = 300
_TRACEBACK = "Traceback (most recent call last):"
_AUTHENTICATION = "AuthenticationError"
"""Ray's class, which also comes as text only."""


class ClusterError(CloraError):
    """There is no cluster to work on; the message says which, why, and the way out."""

    exit_code = 1


def first_words(error: BaseException) -> str:
    """Return the first line of what an exception says, or its name if it says nothing.

    Of a traceback that Ray has put into its words only the last line counts.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    before, found, _ = lines[0].partition(_TRACEBACK)
    return one_line(f"{before}{lines[-1]}" if found else lines[0], max_characters=MAX_WORDS)


def not_reached(address: str, error: Exception) -> ClusterError:
    """Return why the cluster at ``address`` cannot be used."""
    place = one_line(repr(address), max_characters=MAX_WORDS)
    causes = list(_causes(error))
    if any(_AUTHENTICATION in f"{type(cause).__name__}: {cause}" for cause in causes):
        return ClusterError(
            f"the Ray cluster at {place} refuses this machine's token; set RAY_AUTH_MODE=token, "
            "and RAY_AUTH_TOKEN_PATH to the file that the cluster was started with"
        )
    if any("version mismatch" in str(cause).lower() for cause in causes):
        return ClusterError(
            f"the Ray cluster at {place} runs other versions ({_all_words(causes)}); install the "
            "same versions of Ray and Python on both sides"
        )
    if isinstance(error, ValueError):
        return ClusterError(
            f"{place} is no address of a Ray cluster ({first_words(error)}); write HOST:PORT, for "
            "example 10.0.0.1:6379, or leave it out to use this machine alone"
        )
    return ClusterError(
        f"no Ray cluster answers at {place} ({_all_words(causes)}); start one with "
        "`ray start --head`, or leave the address out to use this machine alone"
    )


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
