"""Several Ray nodes on this machine for a driver, one of which may be lost on the way."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from faults.kit import Settings

MIB = 1024**2
STORE_MIB = 100
HERE = {"node_ip_address": "127.0.0.2"}
"""Loopback, and not the address that Ray replaces by the one machines outside reach."""


@contextmanager
def several_nodes(settings: Settings) -> Iterator[str]:
    """Yield the address of a head that holds no actor and of ``num_nodes`` that hold one each."""
    from ray.cluster_utils import Cluster

    head: dict[str, Any] = {**HERE, "num_cpus": 1, "include_dashboard": False}
    if settings.spill_folder is not None:
        # A head that does everything, in little memory.
        head |= {"num_cpus": 2, "object_store_memory": STORE_MIB * MIB}
        head["object_spilling_directory"] = settings.spill_folder
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [_add(cluster) for _ in range(settings.num_nodes)]
    if settings.lose_node_after:
        arguments = (cluster, nodes[0], settings)
        threading.Thread(target=_lose, args=arguments, daemon=True).start()
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def weighed_down(address: str | None, settings: Settings) -> Iterator[None]:
    """Hold ``ballast_mib`` of Ray's object store, so that what a run needs has to be spilled."""
    if not settings.ballast_mib:
        yield
        return
    import numpy as np
    import ray

    ray.init(address=address, log_to_driver=False)
    held = ray.put(np.ones(settings.ballast_mib * MIB, np.uint8))
    try:
        yield
    finally:
        del held


def _add(cluster: Any) -> Any:
    return cluster.add_node(**HERE, num_cpus=2, object_store_memory=200 * MIB)


def _lose(cluster: Any, node: Any, settings: Settings) -> None:
    """Kill all processes of a node once enough units were begun; start another if asked to."""
    log = Path(settings.log)
    while not log.exists() or len(log.read_text().splitlines()) < settings.lose_node_after:
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    if settings.replace_node:
        # Ray would handle signals for the new node too, which only a main thread may ask for.
        with patch("ray._private.utils.set_sigterm_handler"):
            _add(cluster)
