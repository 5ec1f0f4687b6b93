"""One measurement of planning, in a process of its own; prints a line of JSON.

    python -P benchmarks/planning_process.py JOB [--ray CORES] [--steps STEP ...]

Steps are ``plan`` (read the ledger, plan, write the plan), ``commit`` (nine rows in ten) and
``index`` (write the ledger's index). It is a script of its own and looks for everything where
PYTHONPATH says, so that it measures an earlier release, too.

Peak memory is ``VmHWM``, reset before each step: it is of this process alone, where ``ru_maxrss``
begins with that of the process that started it.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

RUN_ID = "20260101T000000Z-benchmark"


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("job", type=Path)
    parser.add_argument("--steps", nargs="+", default=["plan"])
    parser.add_argument("--ray", type=int, metavar="CORES")
    parser.add_argument("--digest", action="store_true")
    arguments = parser.parse_args()
    place, begun = nullcontext(), time.perf_counter()
    if arguments.ray is not None:
        # Before any library counts cores, so that Arrow's threads keep to them as well.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.ray])
        from pipelines.session.private_cluster import private_cluster

        place = private_cluster(num_cpus=arguments.ray)
    with place:
        started_s = time.perf_counter() - begun
        print(json.dumps({"started_s": started_s, **_measured(arguments)}))


@contextmanager
def _measure(into: dict[str, float], name: str) -> Generator[None]:
    """Add seconds, processor seconds of this process, and its peak, under names with ``name``."""
    Path("/proc/self/clear_refs").write_text("5")
    start, start_cpu = time.perf_counter(), time.process_time()
    yield
    into[f"{name}_s"] = time.perf_counter() - start
    into[f"{name}_cpu_s"] = time.process_time() - start_cpu
    into[f"{name}_peak_bytes"] = status_bytes("VmHWM")


def status_bytes(name: str) -> int:
    """Return a size of this process from its status, in bytes."""
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(f"{name}:")
    ]
    return int(line.split()[1]) * 1024


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    from jobs.job.inputs import prepare
    from jobs.job.job_file import load_job
    from jobs.job.run_request import run_request

    if arguments.ray is not None:
        from pipelines.distributed.check import check_on_ray

        prepare = partial(prepare, check=check_on_ray)
    found: dict[str, Any] = {"imported_bytes": status_bytes("VmHWM")}
    job = load_job(arguments.job)
    with _measure(found, "check"):
        request = run_request(job, prepare(job))
    found["rows"] = len(request.rows)
    found["plans"] = []
    for step in arguments.steps:
        if step == "plan":
            found["plans"].append(_planned(request, with_digest=arguments.digest))
        elif step == "commit":
            _commit(request, Path(job.output))
        else:
            with _measure(found, "index"):
                _index(request)
    return found


def _planned(request: Any, *, with_digest: bool) -> dict[str, Any]:
    from pipelines.ledger.ledger import read_ledger
    from pipelines.run_plan import plan_rows

    found: dict[str, Any] = {}
    with _measure(found, "ledger"):
        ledger = read_ledger(request.storage)
    with _measure(found, "plan"):
        plan = plan_rows(request, ledger)
    with _measure(found, "write"):
        _write(request, plan)
    found |= {"units": plan.num_units, "committed": plan.num_already_made}
    if with_digest:
        units = (
            (unit_id, [row["key"] for row in rows])
            for table in plan.unit_keys()
            for unit_id, rows in groupby(table.to_pylist(), itemgetter("unit_id"))
        )
        found["digest"] = units_digest(units)
    return found


def units_digest(units: Any) -> str:
    """Return a digest of units and their keys in order; the order of units does not matter."""
    total = 0
    for unit_id, keys in units:
        content = "\n".join([unit_id, *keys]).encode()
        total += int.from_bytes(hashlib.sha256(content).digest())
    return f"{total % 2**256:064x}"


def _write(request: Any, plan: Any) -> None:
    from pipelines.units.receipts import Phase

    try:
        from pipelines.planning.plan_files import write_plan
    except ImportError:
        # As releases wrote it that kept a plan in one file.
        from pipelines.leases.seal import plan_name
        from pipelines.run_phases import _write_plan

        _write_plan(request.storage, plan_name(RUN_ID, Phase.IMAGES), plan)
    else:
        write_plan(request.storage, RUN_ID, Phase.IMAGES, plan)


def _commit(request: Any, output: Path) -> None:
    from benchmarks.planning_job import commit

    keys = (key for table in request.rows.tables() for key in table["key"].to_pylist())
    commit(keys, len(request.rows) * 9 // 10, output)


def _index(request: Any) -> None:
    from pipelines.ledger.ledger import read_ledger
    from pipelines.ledger.update_index import update_index

    update_index(read_ledger(request.storage))


if __name__ == "__main__":
    main()
