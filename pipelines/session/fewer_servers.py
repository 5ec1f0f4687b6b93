"""A private cluster without the servers that nobody asks: each is a Python process at its start.

Ray starts a dashboard's server even where there is to be no dashboard, and waits for it. A cluster
of one machine has nothing to scale, and logs are not sent to the driver. Together they take some
seconds of processor time, just when the driver and the first actors want it. Ray has no options for
this, so its own functions are replaced while it starts; those that a version of Ray does not have
are left alone, and then it starts as it always does.
"""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

_NOT_STARTED = ("start_api_server", "start_monitor", "start_log_monitor")


@contextmanager
def fewer_servers() -> Generator[None]:
    """Let a ``ray.init`` within the block start what executes work, and nothing that shows it."""
    with ExitStack() as replaced:
        try:
            node: Any = import_module("ray._private.node").Node
            utils: Any = import_module("ray._private.utils")
        except (ImportError, AttributeError):
            yield
            return
        for name in _NOT_STARTED:
            if hasattr(node, name):
                replaced.enter_context(patch.object(node, name, _nothing))
        # Ray's agent then leaves out what serves the dashboard, as where that is not installed.
        if hasattr(utils, "get_dashboard_dependency_error"):
            missing = patch.object(utils, "get_dashboard_dependency_error", _no_dashboard)
            replaced.enter_context(missing)
        yield


def _nothing(*_arguments: object, **_options: object) -> None:
    """Start nothing."""


def _no_dashboard() -> ImportError:
    return ImportError("no dashboard is wanted")
