"""A process that has a private cluster for another one, see ``early_start``.

Says where the cluster is, keeps it until standard input ends, as it does when that process is
killed, and ends it.
"""

import sys
from pathlib import Path

from pipelines.session.local_servers import start_servers


def main() -> None:
    """Start the cluster in the folder that is the first argument, and wait."""
    ray = start_servers(Path(sys.argv[1]), None)
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    ray.shutdown()
