"""What the errors of a store's client mean: whether another try may help, and why in few words.

The client sorts errors by what was asked for, not by what went wrong: a listing that is refused for
its credentials is of the same kind as one whose connection broke. So the answer itself is read, by
its HTTP status and by the code that S3 gives.
"""

import re

from obstore.exceptions import BaseError

from manifests.places.patience import status_may_pass

_STATUS = re.compile(r"status code: ((\d{3})[A-Za-z -]*)")
_CODES = (re.compile(r"<Code>(\w+)</Code>"), re.compile(r"\(code: (\w+)\)"))
_DEBUG = "Debug source"
"""What the client puts between its sentence and its own values, which hold addresses."""

_PASSING_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        # Another write of the same name is under way, and it is not said which will be there.
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
    }
)
_REFUSALS = ("redirect", "BadScheme", "Builder")
_BROKE_OFF = ("ConnectionReset", "ConnectionAborted", "BrokenPipe", "Interrupted", "Incomplete")
_URL = re.compile(r"https?://[^\s\")\],]+")
_PATH = re.compile(r"path: \"[^\"]*\"|location [^\s:]+")
_ROLE = "169.254."
"""Where machines ask for the credentials of their role."""


def may_pass(failure: Exception) -> bool:
    """Return whether a failure is one of the moment; refusals and answers are not."""
    if not isinstance(failure, BaseError):
        return False
    text = _without_urls(failure)
    code, status = answer_code(failure), _STATUS.search(text)
    if code in _PASSING_CODES:
        return True
    if status is not None:
        return status_may_pass(int(status[2]))
    is_kind = type(failure).__name__ in ("GenericError", "JoinError")
    return is_kind and code is None and not any(word in text for word in _REFUSALS)


def is_no_answer(failure: Exception) -> bool:
    """Return whether the store may have done what it was asked for, because it did not say."""
    text = _without_urls(failure)
    return "ConnectionRefused" not in text and "dns error" not in text


def answer_code(failure: Exception) -> str | None:
    """Return the code that S3 gives its answer (``AccessDenied``, ``SlowDown``); None for none."""
    found = (pattern.search(str(failure)) for pattern in _CODES)
    return next((match[1] for match in found if match is not None), None)


def failure_reason(failure: Exception) -> str:
    """Return what went wrong in few words, without the request (it may hold secrets)."""
    text = " ".join(_without_urls(failure).split())
    reason = _reason(failure, text)
    asked_role = any(f"//{_ROLE}" in url for url in _URL.findall(str(failure)))
    return f"asking for the credentials of this machine's role: {reason}" if asked_role else reason


def _without_urls(failure: Exception) -> str:
    """Return what an error says without URLs and paths: names may hold any word."""
    return _URL.sub("", _PATH.sub("path", str(failure)))


def _reason(failure: Exception, text: str) -> str:
    code, status = answer_code(failure), _STATUS.search(text)
    if status is not None:
        return status[1].strip() + (f": {code}" if code else "")
    if code is not None:
        return code
    if "ConnectionRefused" in text:
        return "connection refused"
    if "dns error" in text:
        return "the name of the host cannot be resolved"
    if "Unreachable" in text:
        return "the host cannot be reached"
    if "kind: Timeout" in text:
        return "no answer in time"
    if any(word in text for word in _BROKE_OFF):
        return "the connection broke off"
    return f"{type(failure).__name__}: {text.partition(_DEBUG)[0].strip()[:300]}"
