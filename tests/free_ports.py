"""Ports for servers that tests start, of those that nobody gets by chance.

A port that is asked of the system is of the range that it also gives to outgoing connections, and
a server may bind it seconds later: Ray's agent then found it taken, and its node ended.
"""

import random
import socket

_FIRST, _LAST = 20_000, 30_000
"""Above the ports of Ray's workers, below those of outgoing connections."""


def free_ports(count: int) -> list[int]:
    """Return different ports of this machine that nobody listens at."""
    candidates = random.SystemRandom().sample(range(_FIRST, _LAST), _LAST - _FIRST)
    found = [port for port in candidates[: 10 * count] if _is_free(port)]
    assert len(found) >= count, f"of {10 * count} ports only {len(found)} are free"
    return found[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        try:
            server.bind(("", port))
        except OSError:
            return False
    return True
