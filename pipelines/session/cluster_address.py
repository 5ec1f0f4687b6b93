"""Where the user says that the cluster is, in the option or in ``RAY_ADDRESS``: one rule for both.

Ray takes addresses of several kinds, for several commands, and finds out late and in many words
which kind one is not. So they are read here before Ray is started.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from manifests.text.text_rules import one_line
from pipelines.session.cluster_error import ClusterRefusesError

VARIABLE = "RAY_ADDRESS"
AUTO = "auto"
"""Ray's word for the cluster that runs on this machine, even if another user started it."""

GCS_PORT = 6379
DASHBOARD_PORT = 8265
MAX_PORT = 65535
MAX_WORDS = 200

_PRIVATE = (None, "", "local")
_JOB_SERVERS = ("http", "https")
_CLIENT = "ray"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?")


@dataclass(frozen=True, kw_only=True)
class ClusterAddress:
    """Where a run finds its cluster.

    Attributes:
        text: ``HOST:PORT``, or ``auto``; None for a private cluster on this machine.
        is_variable: It is from ``RAY_ADDRESS`` and not from the command line.
    """

    text: str | None
    is_variable: bool

    @property
    def place(self) -> str:
        """The address with where it was written, as sentences name it."""
        source = VARIABLE if self.is_variable else "--address"
        return f"{source} {_shown(repr(self.text or ''))}"

    @property
    def way_home(self) -> str:
        """How to do without it."""
        leave = f"unset {VARIABLE}" if self.is_variable else "leave --address out"
        return f"{leave} to use this machine alone"

    @property
    def host_and_port(self) -> tuple[str, int] | None:
        """Host, without brackets, and port; None for a cluster that Ray is to find."""
        if self.text in (None, AUTO):
            return None
        host, _, port = str(self.text).rpartition(":")
        return host.strip("[]"), int(port)


def find_address(given: str | None, environment: Mapping[str, str]) -> ClusterAddress:
    """Return where the cluster is.

    Args:
        given: On the command line; None or empty for what ``environment`` says.
        environment: Of this process.

    Raises:
        ClusterRefusesError: There can be no cluster at such an address.
    """
    variable = environment.get(VARIABLE)
    # As with Ray, the variable says which cluster "auto" is.
    is_variable = bool(variable) and (not given or given == AUTO)
    text = variable if is_variable else given
    address = ClusterAddress(text=None if text in _PRIVATE else text, is_variable=is_variable)
    if address.text is not None and address.text != AUTO:
        _check(address, address.text)
    return address


def _check(address: ClusterAddress, text: str) -> None:
    scheme, found, _ = text.partition("://")
    if found and scheme.lower() in _JOB_SERVERS:
        host = _host_of(text)
        raise ClusterRefusesError(
            f"{address.place} is a job server, and a run joins its cluster at "
            f"{host}:{GCS_PORT}; send the job there with `clora submit JOB --address "
            f"{_shown(text)}`, or {address.way_home}"
        )
    if found and scheme.lower() == _CLIENT:
        host = _host_of(text)
        raise ClusterRefusesError(
            f"{address.place} is a Ray Client server, which a run cannot use; on a machine of the "
            f"cluster write {host}:{GCS_PORT}, from elsewhere send the job with `clora submit "
            f"JOB --address http://{host}:{DASHBOARD_PORT}`, or {address.way_home}"
        )
    reason = f"{scheme}:// is no kind of it" if found else _wrong(text)
    if reason is not None:
        raise ClusterRefusesError(
            f"{address.place} is no address of a Ray cluster ({reason}); write HOST:PORT, for "
            f"example 10.0.0.1:{GCS_PORT}, or {address.way_home}"
        )


def _wrong(text: str) -> str | None:
    """Return what is wrong with ``HOST:PORT``; None if nothing is."""
    if re.search(r"\s", text):
        return "it has blanks"
    host, colon, port = text.rpartition(":")
    if not colon:
        return "it has no port"
    if not _is_host(host):
        return f"{host!r} is no host" if host else "it has no host"
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= MAX_PORT):
        return f"{port!r} is no port, which is a number from 1 to {MAX_PORT}"
    return None


def _is_host(host: str) -> bool:
    if host.startswith("[") and host.endswith("]"):
        try:
            IPv6Address(host[1:-1].partition("%")[0])
        except ValueError:
            return False
        return True
    return _HOST.fullmatch(host) is not None


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or "HOST"
    except ValueError:
        return "HOST"


def _shown(address: str) -> str:
    """Return an address as sentences have it: without a password."""
    return one_line(re.sub(r"//[^/@]*@", "//", address), max_characters=MAX_WORDS)
