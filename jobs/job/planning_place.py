"""Where a job's manifest is checked and planned: in this process, or by Ray Data on a cluster."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager

from jobs.job.job_file import JobFile
from manifests.rows.check import CheckManifest, check_manifest
from manifests.tables.splits import count_rows
from pipelines.session.cluster_address import find_address
from pipelines.session.cluster_session import cluster_session

MANY_ROWS = 1_000_000
"""From here on a cluster that is there plans faster than one process."""


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
        yield check_manifest
        return
    with cluster_session(address, note=note) as cluster:
        from pipelines.distributed.check import check_on_ray

        note(f"the manifest is checked and planned by Ray Data on {cluster.cpus:g} processor(s)")
        yield check_on_ray


def _is_for_cluster(job: JobFile, address: str | None) -> bool:
    if job.resources.plan_on != "auto":
        return job.resources.plan_on == "cluster"
    is_named = find_address(address, os.environ).text is not None
    return is_named and count_rows(job.manifest, at_most=MANY_ROWS) >= MANY_ROWS
