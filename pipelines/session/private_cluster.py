"""A Ray cluster of this process alone: loopback, a token and a folder of its own, gone with it."""

import logging
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.session.abandoned_folders import remove_abandoned_folders
from pipelines.session.chatter import hidden_chatter
from pipelines.session.cluster_error import ClusterError
from pipelines.session.early_start import EarlyStart, take_early_start
from pipelines.session.folder_writers import end_writers
from pipelines.session.local_servers import server_settings, start_servers
from pipelines.session.loopback import check_loopback
from pipelines.session.private_folder import (
    SAID_NAME,
    make_private_folder,
    possible_bases,
    ray_folder,
    remove_private_folder,
)


@contextmanager
def private_cluster(
    *, num_cpus: int | None = None, note: Callable[[str], None] = lambda _text: None
) -> Generator[Any]:
    """Start Ray for this process alone and end it afterwards; yield the module ``ray``.

    What killed runs of this user left is removed first. A start that fails leaves its folder, with
    Ray's logs, to be looked at until the next run.

    Args:
        num_cpus: Processors that Ray may give away; None for all of this machine.
        note: Called with a sentence if the folder is not where the user wants it.

    Raises:
        ClusterError: It cannot be started.
    """
    early = take_early_start() if num_cpus is None else None
    if early is not None:
        with _environment(early.settings):
            ray = _connected(early)
            if ray is not None:
                for text in early.notes:
                    note(text)
                with _ended(ray, early.end):
                    yield ray
                return
    check_loopback(os.environ)
    bases = possible_bases(os.environ)
    remove_abandoned_folders(bases)
    folder = make_private_folder(bases, note=note)
    with _environment(server_settings(folder)):
        try:
            ray = start_servers(folder, num_cpus)
        except BaseException as error:
            end_writers(ray_folder(folder))
            has_logs = isinstance(error, ClusterError) and ray_folder(folder).exists()
            if not has_logs:
                remove_private_folder(folder)
            raise
        with _ended(ray, lambda: _remove(folder)):
            yield ray


@contextmanager
def _ended(ray: Any, end: Callable[[], None]) -> Generator[None]:
    """Disconnect after the block, and then end the cluster, whatever went wrong."""
    try:
        yield
    finally:
        try:
            ray.shutdown()
        finally:
            end()


def _remove(folder: Path) -> None:
    end_writers(ray_folder(folder))
    remove_private_folder(folder)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Generator[None]:
    """Set variables of this process, which those that it starts inherit; put them back."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _connected(early: EarlyStart) -> Any | None:
    """Return ``ray``, connected; None if the cluster is not there, and is given up."""
    try:
        import ray

        with suppress(ImportError):
            # A second of imports that the run needs anyway, while Ray is still starting.
            import_module("ray.data")
        address = early.address()
        if address is not None and _reached(ray, address, early):
            return ray
    except BaseException:
        early.give_up()
        raise
    early.give_up()
    return None


def _reached(ray: Any, address: str, early: EarlyStart) -> bool:
    try:
        with hidden_chatter(early.folder / SAID_NAME):
            ray.init(
                address=address,
                log_to_driver=False,
                configure_logging=True,
                logging_level=logging.ERROR,
            )
    except Exception:  # noqa: BLE001 - Ray has no one class; the next start says what is wrong
        ray.shutdown()
        return False
    return True
