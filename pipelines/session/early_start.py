"""A private cluster that starts while its run is still being prepared.

Ray takes seconds until its servers and first workers are there, and so do a job's inputs until they
are checked. So the cluster is started by a process of its own, a Ray driver without work: what Ray
says meanwhile is not said in this process, and if there is nothing to run, because inputs are
refused or all rows are made, it is killed with what it started. A start that fails is given up, and
the cluster started again in this process, which says what is wrong.
"""

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

from pipelines.session.abandoned_folders import remove_abandoned_folders
from pipelines.session.cluster_error import ClusterError
from pipelines.session.folder_writers import end_writers, kill_writers
from pipelines.session.local_servers import server_settings
from pipelines.session.loopback import check_loopback
from pipelines.session.private_folder import (
    make_private_folder,
    possible_bases,
    ray_folder,
    remove_private_folder,
)

END_S = 10.0
"""How long the starting process may take to end the cluster in good order."""

_STARTER = """
import sys
sys.path[:] = sys.argv[2:]
from pipelines.session.starter import main
main()
"""

_BEGUN: list["EarlyStart"] = []


class EarlyStart:
    """A cluster that a child process starts. The child ends it when its standard input is closed.

    Attributes:
        folder: Of the cluster, see ``private_folder``.
        settings: Variables that Ray is to find in this process, too.
        notes: What the user is to know if the cluster is used.

    Raises:
        ClusterError: It cannot be started.
    """

    def __init__(self) -> None:
        check_loopback(os.environ)
        bases = possible_bases(os.environ)
        remove_abandoned_folders(bases)
        self.notes: list[str] = []
        self.folder = make_private_folder(bases, note=self.notes.append)
        self.settings = server_settings(self.folder)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and what is here
                [sys.executable, "-c", _STARTER, str(self.folder), *sys.path],
                env={**os.environ, **self.settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Ctrl-C is for the run, which needs its cluster to the end.
                start_new_session=True,
            )
        except OSError:
            remove_private_folder(self.folder)
            raise

    def address(self) -> str | None:
        """Return where the cluster is, once it is there; None if it could not be started."""
        if self._process.stdout is None:
            return None
        return self._process.stdout.readline().decode().strip() or None

    def end(self) -> None:
        """End the cluster in good order."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)
        self._process.kill()
        self._process.wait()
        end_writers(ray_folder(self.folder))
        remove_private_folder(self.folder)

    def give_up(self) -> None:
        """Kill whatever is there of the cluster, which nobody has used."""
        self._process.kill()
        self._process.wait()
        kill_writers(ray_folder(self.folder))
        remove_private_folder(self.folder)


@contextmanager
def starting_early() -> Generator[None]:
    """Let a private cluster start, which is there for a session within the block, or given up."""
    try:
        begun = EarlyStart()
    except (ClusterError, OSError):
        # It is said when the cluster is wanted.
        yield
        return
    _BEGUN.append(begun)
    try:
        yield
    finally:
        if begun in _BEGUN:
            _BEGUN.remove(begun)
            begun.give_up()


def take_early_start() -> EarlyStart | None:
    """Return the cluster that is starting, which the caller has to end; None if there is none."""
    return _BEGUN.pop() if _BEGUN else None
