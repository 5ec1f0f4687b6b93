"""The port at which a run's metrics can be scraped while it lasts.

Loopback unless told otherwise: metrics name methods and counts and no prompt, but whoever may read
them is for the operator to say. The port goes with the run; what it came to stays in metrics.prom.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, start_http_server

from clora_core.recipe.errors import CloraError

LOOPBACK = "127.0.0.1"
MAX_PORT = 65535


class MetricsPortError(CloraError):
    """The port cannot be opened; the message names it and the way out."""

    exit_code = 1


class MetricsAddressError(MetricsPortError):
    """What was given is no address."""

    exit_code = 2


@dataclass(frozen=True, kw_only=True)
class MetricsAddress:
    """Where metrics are served."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return ``host:port``."""
        return f"{self.host}:{self.port}"


def parse_address(text: str) -> MetricsAddress:
    """Return the address that ``PORT`` (on loopback) or ``HOST:PORT`` means.

    Raises:
        MetricsAddressError: It is neither.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isascii() or not port.isdecimal() or not 1 <= int(port) <= MAX_PORT:
        raise MetricsAddressError(
            f"metrics port should be PORT or HOST:PORT with a port of 1 to {MAX_PORT}, got {text!r}"
        )
    return MetricsAddress(host=host or LOOPBACK, port=int(port))


@contextmanager
def served(registry: CollectorRegistry, address: MetricsAddress | None) -> Generator[None]:
    """Serve ``registry`` at ``http://address/metrics`` within the block; nothing if it is None.

    Raises:
        MetricsPortError: The port is taken, or the host is not this machine's.
    """
    if address is None:
        yield
        return
    try:
        server, thread = start_http_server(address.port, addr=address.host, registry=registry)
    except OSError as error:
        raise MetricsPortError(
            f"metrics cannot be served at {address} ({error.strerror or error}); choose another "
            "port, or end what listens there"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
