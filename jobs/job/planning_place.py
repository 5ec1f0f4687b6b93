"""Where a job's manifest is checked and planned: in this process, or by Ray Data on a cluster."""

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from jobs.job.job_file import JobFile
from manifests.rows.check import CheckManifest, check_manifest
from manifests.tables.splits import count_rows
from pipelines.session.cluster_address import find_address
from pipelines.session.cluster_session import cluster_session

MANY_ROWS = 1_000_000
"""From here on a cluster that is there plans faster than one process."""

SAY_EVERY_S = 15.0
"""How often a long check says how far it is."""


@contextmanager
def planning_place(
    job: JobFile, address: str | None, *, note: Callable[[str], None] = lambda _text: None
) -> Generator[CheckManifest]:
    """Yield what checks the job's manifest; its rows can be used, and planned, within the block.

    Args:
        job: Says where, as ``resources.plan_on``.
        address: Of a cluster; see ``cluster_session``.
        note: Called with a sentence for the user.

    Raises:
        ClusterError: The cluster is wanted and there is none.
    """
    if not _is_for_cluster(job, address):
        yield check_here(note)
        return
    with cluster_session(address, note=note) as cluster:
        from pipelines.distributed.check import check_on_ray

        note(f"the manifest is checked and planned by Ray Data on {cluster.cpus:g} processor(s)")
        yield check_on_ray


def check_here(note: Callable[[str], None]) -> CheckManifest:
    """Return what checks a manifest in this process, and says now and then how far it is."""
    said_s = time.monotonic()

    def watch(num_rows: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= SAY_EVERY_S:
            said_s = time.monotonic()
            note(f"{num_rows:,} rows of the manifest are checked so far")

    return partial(check_manifest, watch=watch)


def _is_for_cluster(job: JobFile, address: str | None) -> bool:
    if job.resources.plan_on != "auto":
        return job.resources.plan_on == "cluster"
    is_named = find_address(address, os.environ).text is not None
    return is_named and count_rows(job.manifest, at_most=MANY_ROWS) >= MANY_ROWS
