"""What a run's tickets cost on their way into Ray: a block for each unit, made by the driver.

    python -m benchmarks.tickets NUM_UNITS [--blocks]

``data.from_arrow`` runs a task for the metadata of each; ``--blocks`` measures
``data.from_blocks``, which runs none. Prints a line of JSON, of which ``benchmarks.planning``
makes a table.
"""

import argparse
import json
import time

from benchmarks.planning_process import status_bytes
from pipelines.session.private_cluster import private_cluster


def main() -> None:
    """Hand over as many tickets as is asked for, as ``pipelines.stages.graph`` does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("num_units", type=int)
    parser.add_argument("--blocks", action="store_true")
    arguments = parser.parse_args()
    with private_cluster(num_cpus=1):
        import pyarrow as pa
        from ray import data

        hand_over = data.from_blocks if arguments.blocks else data.from_arrow
        # What the first call loads is not of the tickets.
        hand_over([pa.table({"ticket": [0]})])
        before, start = status_bytes("VmRSS"), time.perf_counter()
        tickets = hand_over([pa.table({"ticket": [n]}) for n in range(arguments.num_units)])
        found = {
            "hand_over_s": time.perf_counter() - start,
            "before_bytes": before,
            "peak_bytes": status_bytes("VmHWM"),
        }
        del tickets
    print(json.dumps(found))


if __name__ == "__main__":
    main()
