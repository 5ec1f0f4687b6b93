"""What a plan costs before anything is made: seconds and memory, from 10,000 rows to a million.

    python -m benchmarks.planning [--rows 10000 100000 1000000] [--rows-per-unit 8]

Every size is planned twice in processes of their own, once for an empty output and once with nine
rows in ten committed, because peak memory cannot be measured twice in one process. The manifest is
Parquet with two LoRAs, a prompt of its own and an id per row; checking includes reading, resolving
names and settings, keys and problems. Committed units hold keys and no images.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

MIB = 1024**2
COMMITTED_TENTHS = 9
COMMITTED_ROWS_PER_UNIT = 256
"""Larger than a run's units, so that the benchmark does not take an hour to prepare."""


def main() -> None:
    """Print a table of all sizes, empty and nearly done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rows-per-unit", type=int, default=8)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--commit", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(_measure(arguments.measure, commit=arguments.commit)))
        return
    print("| rows | committed | check s | ledger s | plan s | units | peak MiB | bytes a row |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    base_bytes = None
    for num_rows in [100, *arguments.rows]:
        with tempfile.TemporaryDirectory() as folder:
            job = _write_job(Path(folder), num_rows, arguments.rows_per_unit)
            for commit in (False, True):
                told = _ask("--measure", str(job))
                if base_bytes is None:
                    base_bytes = told["peak_bytes"]
                    print(f"(a plan of 100 rows peaks at {base_bytes / MIB:.0f} MiB)")
                if num_rows == arguments.rows[0] or num_rows != 100:
                    a_row = (told["peak_bytes"] - base_bytes) / num_rows
                    print(
                        f"| {num_rows:,} | {told['committed']:,} | {told['check_s']:.1f} | "
                        f"{told['ledger_s']:.2f} | {told['plan_s']:.1f} | {told['units']:,} | "
                        f"{told['peak_bytes'] / MIB:.0f} | {a_row:,.0f} |",
                        flush=True,
                    )
                if not commit:
                    _ask("--measure", str(job), "--commit")
    print(f"\n{os.cpu_count()} CPU cores, {platform.machine()}, Python {platform.python_version()}")


def _ask(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.planning", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(job_path: Path, *, commit: bool) -> dict[str, float]:
    """Return what planning the job took; with ``commit``, commit nine tenths of the plan."""
    from jobs.job.inputs import prepare
    from jobs.job.job_file import load_job
    from jobs.job.run_request import run_request
    from pipelines.ledger.ledger import read_ledger
    from pipelines.run_plan import plan_rows

    start = time.perf_counter()
    job = load_job(job_path)
    request = run_request(job, prepare(job))
    checked = time.perf_counter()
    ledger = read_ledger(request.storage)
    read = time.perf_counter()
    plan = plan_rows(request, ledger)
    planned = time.perf_counter()
    if commit:
        _commit([row.key for row in request.rows], Path(job.output))
    return {
        "check_s": checked - start,
        "ledger_s": read - checked,
        "plan_s": planned - read,
        "units": plan.num_units,
        "committed": len(ledger.made),
        # Linux counts in KiB.
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _write_job(folder: Path, num_rows: int, rows_per_unit: int) -> Path:
    import emoji_world

    entries = yaml.safe_load(emoji_world.lora_catalog().read_text())["loras"]
    concepts = [entry for entry in entries if entry.get("kind", "concept") == "concept"]
    pairs = [
        (one, other)
        for one in concepts
        for other in concepts
        if one["subject"] < other["subject"] and one["name"] != other["name"]
    ]
    writer = None
    for start in range(0, num_rows, 50_000):
        rows = [
            {
                "row_id": f"row-{index:08}",
                "prompt": f"a {one['subject']} and a {other['subject']} in place {index % 9973}",
                "loras": [one["name"], other["name"]],
                "seed": index,
            }
            for index in range(start, min(start + 50_000, num_rows))
            for one, other in [pairs[index % len(pairs)]]
        ]
        table = pa.Table.from_pylist(rows)
        writer = writer or pq.ParquetWriter(folder / "rows.parquet", table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    job = folder / "job.yaml"
    job.write_text(
        yaml.safe_dump(
            {
                "manifest": "rows.parquet",
                "output": "out",
                "scoring": {"references": 0},
                "resources": {"rows_per_unit": rows_per_unit},
            }
        )
    )
    return job


def _commit(keys: list[str], output: Path) -> None:
    from pipelines.storage.storage import open_storage
    from pipelines.units.committed_unit import UnitFooter, encode_unit, rows_name
    from pipelines.units.schemas import ROWS

    storage = open_storage(str(output))
    done = keys[: len(keys) * COMMITTED_TENTHS // 10]
    for start in range(0, len(done), COMMITTED_ROWS_PER_UNIT):
        part = done[start : start + COMMITTED_ROWS_PER_UNIT]
        columns = {
            field.name: pa.array(part) if field.name == "key" else pa.nulls(len(part), field.type)
            for field in ROWS
        }
        unit_id = f"{start:064x}"
        footer = UnitFooter(unit_id=unit_id, run_id="benchmark", errors=[], failed_at_ms=0)
        content = encode_unit(pa.table(columns, schema=ROWS), footer)
        storage.put(rows_name(unit_id), content)


if __name__ == "__main__":
    main()
