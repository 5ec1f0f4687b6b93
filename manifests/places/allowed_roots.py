"""Where a service lets strangers' jobs read and write: an allow-list of folders and stores.

``CLORA_ALLOWED_ROOTS`` holds folders and URIs, separated by commas. Where it isn't set, whoever
runs the command may name any place that their own account can reach, as with any other command.
Where it is, a path counts by where it really is (links followed), and a URI only if it continues a
root of the same scheme, host and query, so that no entry can lead to a private address or to
another store by itself. A file of the model hub is fetched with the service's own token, so it
counts by its repository, which a root opens as ``hf://owner/name``.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from manifests.places.hub_names import hub_file, is_open_repository
from manifests.places.locations import LocationError
from manifests.places.place_names import is_uri
from manifests.text.wording import shown

VARIABLE = "CLORA_ALLOWED_ROOTS"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_CREDENTIALS = re.compile(r"(\A[A-Za-z][A-Za-z0-9+.\-]*://)[^/?#]*@")


@dataclass(frozen=True, slots=True)
class AllowedRoots:
    """The roots; None allows every place.

    Attributes:
        roots: Absolute folders and URIs.
    """

    roots: tuple[str, ...] | None = None

    def refusal(self, place: str) -> str | None:
        """Return a sentence on why ``place`` may not be used, or None if it may.

        Args:
            place: Absolute path, URI or hub name, as entries are resolved.
        """
        reason = self._reason(place)
        return None if reason is None else f"{_named(place)} {reason}"

    def _reason(self, place: str) -> str | None:
        if _CREDENTIALS.search(place):
            return (
                "holds credentials; take them out of the name and set them in the environment: "
                "names are printed, logged and stored"
            )
        if self.roots is None:
            return None
        if _CONTROL.search(place):
            return "holds a control character; no file of a service is called that"
        of_hub = hub_file(place)
        try:
            parts = urlsplit(place) if is_uri(place) else None
            if of_hub is not None:
                inside = any(is_open_repository(of_hub.repository, root) for root in self.roots)
            elif parts is None or parts.scheme == "file":
                path = place if parts is None else unquote(parts.path)
                inside = any(_holds_path(root, path) for root in self.roots if not is_uri(root))
            else:
                inside = any(_holds_uri(root, parts) for root in self.roots if is_uri(root))
                private = None if inside else _private_host(parts)
                if private is not None:
                    return (
                        f"leads to the private address {private}, which no entry may name; only "
                        f"what {VARIABLE} lists is open"
                    )
        except (ValueError, OSError, RuntimeError) as error:
            return f"is no place that can be judged ({error}); correct it"
        if inside:
            return None
        return (
            f"is outside the places that this service opens; move it below one of "
            f"{', '.join(self.roots) or '(none)'}, or have {VARIABLE} changed"
        )

    def check(self, place: str) -> None:
        """Refuse a place that may not be used, before it is touched; argument as in ``refusal``.

        Raises:
            LocationError: The sentence names the place and the reason.
        """
        refusal = self.refusal(place)
        if refusal is not None:
            raise LocationError(refusal)


def _named(place: str) -> str:
    """Return ``place`` as it may stand in a message: cut, and without credentials."""
    return shown(_CREDENTIALS.sub(r"\1***@", place))


EVERYWHERE = AllowedRoots()
"""No restriction: whoever runs the command is trusted with what their account can reach."""


def allowed_roots(environment: Mapping[str, str] = os.environ) -> AllowedRoots:
    """Return the roots that ``CLORA_ALLOWED_ROOTS`` names; everywhere if it isn't set.

    A value without any root, such as an empty text, allows nothing.

    Raises:
        ValueError: A root is neither an absolute path nor a URI.
    """
    value = environment.get(VARIABLE)
    if value is None:
        return EVERYWHERE
    roots = tuple(root.strip() for root in value.split(",") if root.strip())
    for root in roots:
        if not root.startswith("/") and not is_uri(root):
            raise ValueError(
                f"{VARIABLE} holds {root!r}, which is neither an absolute path nor a URI; separate "
                "roots by commas"
            )
        if root.lower().startswith("file://"):
            raise ValueError(f"{VARIABLE} holds {root!r}; write a folder as a plain path")
    return AllowedRoots(roots)


def _holds_path(root: str, path: str) -> bool:
    # Links are followed on both sides: a link inside to a file outside is outside.
    return Path(path).resolve().is_relative_to(Path(root).resolve())


def _holds_uri(root: str, parts: SplitResult) -> bool:
    own = urlsplit(root)
    if (own.scheme, own.netloc, own.query) != (parts.scheme, parts.netloc, parts.query):
        return False
    names = unquote(parts.path).split("/")
    if ".." in names or "." in names or parts.fragment:
        return False
    # Readers take %41 for A, and whoever writes takes it as it stands: it must be inside for both.
    return _is_below(own.path, parts.path) and _is_below(unquote(own.path), unquote(parts.path))


def _is_below(folder: str, path: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _private_host(parts: SplitResult) -> str | None:
    """Return the host of a URI or of its ``endpoint_override`` if it is a private one."""
    hosts = [parts.hostname or ""]
    for name, value in parse_qsl(parts.query):
        if "endpoint" in name or "proxy" in name:
            hosts.append(urlsplit(value if "://" in value else f"//{value}").hostname or "")
    for host in hosts:
        if host == "localhost" or host.endswith((".localhost", ".internal", ".local")):
            return host
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            continue
        if not address.is_global:
            return host
    return None
