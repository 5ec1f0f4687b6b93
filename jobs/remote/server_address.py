"""Where the job server is, by the option or the environment, and whether anybody answers there.

Ray's client asks without a limit of time, takes its variables before what it is given, and looks
for a cluster's GCS where ``http://`` is missing.
"""

import os
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from ipaddress import ip_address
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from jobs.remote.server_error import ServerError, ServerRefusesError
from manifests.text.text_rules import one_line
from pipelines.session.cluster_address import AUTO, find_address
from pipelines.session.cluster_error import ClusterError
from pipelines.session.knock import knock

ANSWER_S = 15.0
"""How long nobody may answer."""

WAY_OUT = (
    "start the cluster, name its dashboard (http://HOST:8265), or forward the port: "
    "ssh -L 8265:127.0.0.1:8265 HEAD"
)
_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""In the order that Ray goes by them."""

_FOUND_BY_RAY = (None, "", AUTO, "local")
_SCHEMES = ("http", "https")
_MAX_WORDS = 200


@dataclass(frozen=True, kw_only=True)
class ServerAddress:
    """Where jobs are sent.

    Attributes:
        text: ``http://HOST:PORT`` of a dashboard, or ``HOST:PORT`` of a head that knows it; None
            for the cluster that Ray finds on this machine.
        source: Who says so: the option, or a variable.
    """

    text: str | None
    source: str

    @property
    def place(self) -> str:
        """The address in sentences."""
        if self.text is None:
            return "Ray's default address"
        return f"{self.source} {one_line(repr(self.text), max_characters=_MAX_WORDS)}"

    @property
    def is_url(self) -> bool:
        """Whether it is the dashboard itself."""
        return self.text is not None and "://" in self.text


def find_server(given: str | None, environment: Mapping[str, str]) -> ServerAddress:
    """Return where jobs are sent; what is given comes before the environment.

    Raises:
        ServerRefusesError: There can be no job server at such an address.
    """
    named = ((name, environment.get(name)) for name in _VARIABLES)
    options = [("--address", None if given == AUTO else given), *named]
    source, text = next(((name, value) for name, value in options if value), ("--address", None))
    address = ServerAddress(text=None if text in _FOUND_BY_RAY else text, source=source)
    if address.text is None:
        return address
    reason = _wrong(address.text)
    if reason is not None:
        raise ServerRefusesError(
            f"{address.place} is no address of a job server ({reason}); write http://HOST:8265, "
            "the dashboard of a Ray cluster"
        )
    return address


def check_server(address: ServerAddress) -> None:
    """Return if something answers.

    Raises:
        ServerError: Nobody does, for a while.
        ServerRefusesError: Something else does.
    """
    if address.text is None:
        return
    if address.is_url:
        _pass_proxies_by(_host(address.text))
        _ask(address, address.text)
        return
    found = find_address(address.text, {})
    if found.host_and_port is None:
        return
    host, port = found.host_and_port
    try:
        knock(host, port, place=address.place, way_home="name its dashboard: http://HOST:8265")
    except ClusterError as error:
        kind = ServerRefusesError if error.exit_code != ServerError.exit_code else ServerError
        raise kind(str(error)) from error


@contextmanager
def only_address(address: ServerAddress) -> Generator[None]:
    """Let Ray's client go to this address, whatever its variables say."""
    name = _VARIABLES[0]
    before = os.environ.get(name)
    if address.text is not None:
        os.environ[name] = address.text
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def proxy_words(address: ServerAddress) -> str:
    """Return what to know of a proxy between here and the server; nothing if there is none."""
    if not address.is_url:
        return ""
    host, scheme = _host(str(address.text)), urlsplit(str(address.text)).scheme
    if scheme not in urllib.request.getproxies() or urllib.request.proxy_bypass(host):
        return ""
    return f" (through the proxy that {scheme}_proxy names; no_proxy={host} passes it by)"


def _wrong(text: str) -> str | None:
    if any(character.isspace() for character in text):
        return "it has blanks"
    scheme, found, _ = text.partition("://")
    if not found:
        try:
            find_address(text, {})
        except ClusterError:
            return "it is neither a URL nor HOST:PORT of a head"
        return None
    if scheme == "ray":
        return "it is a Ray Client server"
    if scheme not in _SCHEMES:
        return f"{scheme}:// is no kind of it"
    try:
        parts = urlsplit(text)
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        return one_line(str(error), max_characters=_MAX_WORDS)
    return None if has_host else "it has no host"


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _pass_proxies_by(host: str) -> None:
    """Let no proxy have requests to this machine itself: there they would mean the proxy's own."""
    try:
        is_own = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        is_own = False
    if is_own:
        passed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        os.environ["no_proxy"] = ",".join(filter(None, [passed, host]))


def _ask(address: ServerAddress, url: str) -> None:
    asked = url.rstrip("/") + "/api/version"
    try:
        urllib.request.urlopen(asked, timeout=ANSWER_S).close()  # noqa: S310 - http or https
    except HTTPError as error:
        # An answer; what it means is for Ray's client to say.
        error.close()
    except (URLError, OSError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, SSLError):
            # Ray's client may know other certificates.
            return
        words = one_line(str(reason), max_characters=_MAX_WORDS)
        raise ServerError(
            f"no job server answers at {address.place} ({words}){proxy_words(address)}; {WAY_OUT}"
        ) from error
    except HTTPException as error:
        raise ServerRefusesError(
            f"what answers at {address.place} is no web server{proxy_words(address)}; name the "
            "dashboard of a Ray cluster, http://HOST:8265"
        ) from error
