"""What a run's tickets cost on their way into Ray, before the first unit is made.

    python -m benchmarks.tickets NUM_UNITS [--each]

``--each`` measures a block for each ticket, handed over by the driver, in place of what a run does.
Prints a line of JSON, of which ``benchmarks.planning`` makes a table.
"""

import argparse
import json
import time

from benchmarks.planning_process import status_bytes
from pipelines.session.private_cluster import private_cluster


def main() -> None:
    """Hand over as many tickets as is asked for, as ``pipelines.stages.tickets`` does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("num_units", type=int)
    parser.add_argument("--each", action="store_true")
    arguments = parser.parse_args()
    with private_cluster(num_cpus=1):
        import pyarrow as pa
        from ray import data

        from pipelines.stages.tickets import tickets_of_one_phase

        def hand_over(num_units: int) -> data.Dataset:
            if not arguments.each:
                return tickets_of_one_phase(num_units)
            return data.from_arrow([pa.table({"ticket": [n]}) for n in range(num_units)])

        # What the first call loads is not of the tickets.
        hand_over(1)
        before, start = status_bytes("VmRSS"), time.perf_counter()
        handed = hand_over(arguments.num_units)
        found = {
            "hand_over_s": time.perf_counter() - start,
            "before_bytes": before,
            "peak_bytes": status_bytes("VmHWM"),
        }
        del handed
    print(json.dumps(found))


if __name__ == "__main__":
    main()
