"""What may go wrong between this machine and the model hub, as sentences with a way out."""

import re

from manifests.places.hub_names import HubFile
from manifests.places.locations import LocationError, StoreAwayError
from manifests.places.patience import GaveUpError, status_may_pass

_ERRNO = re.compile(r"\A\[Errno -?\d+\] ")


def may_pass(failure: Exception) -> bool:
    """Return whether a failure is one of the moment."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(failure, HfHubHTTPError):
        return status_may_pass(failure.response.status_code)
    return _is_network(failure)


def hub_closed(named: HubFile) -> LocationError:
    """Return the error of a file that would have to be fetched while the hub is closed."""
    return LocationError(
        f"{named} is not on this machine, and HF_HUB_OFFLINE closes the hub; unset it once to have "
        "the file fetched, or name a file on a disk or in a bucket"
    )


def hub_away(named: HubFile, failure: Exception, tried: str = "") -> StoreAwayError:
    """Return the error of a hub that does not give the file now.

    Args:
        named: The file.
        failure: What the client raised last.
        tried: How often and for how long, if it is known.
    """
    said = "; ".join(filter(None, (_reason(failure), tried)))
    return StoreAwayError(
        f"{named} is not on this machine and cannot be fetched from the hub ({said}); check the "
        "network, proxy and HF_ENDPOINT, and try again"
    )


def hub_problem(named: HubFile, failure: Exception) -> LocationError | StoreAwayError:
    """Return the error of whatever the client of the hub has raised for a file."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository = repr(named.repository)
    if isinstance(failure, GaveUpError):
        return hub_away(named, failure.failure, str(failure))
    if isinstance(failure, GatedRepoError):
        return LocationError(
            f"{named} may not be read: {repository} is gated; accept its terms on its page, and "
            "set HF_TOKEN to a token of the account that did"
        )
    if isinstance(failure, RepositoryNotFoundError):
        return LocationError(
            f"{named} does not exist: the hub has no repository {repository}, or it is private; "
            "correct the name, or set HF_TOKEN to a token that may read it"
        )
    if isinstance(failure, RevisionNotFoundError):
        return LocationError(
            f"{named} does not exist: {repository} has no revision {named.revision!r}; write a "
            "branch, a tag or best a commit with its 40 digits"
        )
    if isinstance(failure, HfHubHTTPError) and failure.response.status_code in (401, 403):
        return LocationError(
            f"{named} may not be read (HTTP status {failure.response.status_code}); set HF_TOKEN "
            f"to a token that may read {repository}"
        )
    if isinstance(failure, HfHubHTTPError | HFValidationError):
        return LocationError(
            f"{named} cannot be fetched from the hub ({_reason(failure)}); correct the name"
        )
    if isinstance(failure, OSError) and failure.errno is not None:
        return StoreAwayError(
            f"{named} cannot be kept in {constants.HF_HUB_CACHE} ({failure.strerror}); make room "
            "or correct the permissions there, or set HF_HUB_CACHE to another folder"
        )
    return hub_away(named, failure)


def _is_network(failure: Exception) -> bool:
    """Return whether it is an error of the client's HTTP library, which has had several names."""
    return type(failure).__module__.partition(".")[0].startswith("httpx")


def _reason(failure: BaseException) -> str:
    """Return what went wrong, in few words; the client wraps it in others and in advice."""
    from huggingface_hub.errors import HfHubHTTPError

    while failure.__cause__ is not None and not isinstance(failure, HfHubHTTPError):
        failure = failure.__cause__
    if isinstance(failure, HfHubHTTPError):
        return f"HTTP status {failure.response.status_code}"
    text = (str(failure).strip().splitlines() or [type(failure).__name__])[0]
    return _ERRNO.sub("", text)
