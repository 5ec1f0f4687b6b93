"""How often LoRAs are read, against the fewest reads there can be."""

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from engine_kit import lora, row, store

from benchmarks.sleeping import SleepingSource
from clora_core.recipe.row import Row
from pipelines.planning.plan import Plan
from pipelines.planning.plan_files import PlanReader, write_plan
from pipelines.planning.plan_units import plan_units
from pipelines.planning.references import CentroidSource
from pipelines.session.resources import Resources
from pipelines.session.shares import Cluster, share_cluster
from pipelines.stages.phases import UnitPhase
from pipelines.storage.local import LocalStorage
from pipelines.units.receipts import Phase

NUM_SETS = 50
NUM_ACTORS = 4
NUM_ROWS = 1600
ROWS_PER_UNIT = 8
MAX_LORAS = 4
SECONDS_A_ROW = 0.02
SECONDS_A_LOAD = 0.05
RUN_ID = "run-1"


def lora_load_lines(repeats: int) -> Iterator[str]:
    """Yield the table of loads: rows as they were shuffled, and as the product plans them."""
    manifest = zipf_manifest(np.random.default_rng(7))
    bound = len({lora.digest for row in manifest for lora in row.loras})
    planned = plan_units(manifest, made=(), failed={}, rows_per_unit=ROWS_PER_UNIT, attempts=None)
    yield "| order | units | loads | bound | ratio |"
    yield "|---|--:|--:|--:|--:|"
    for name, plan in (("as the rows come", as_they_come(manifest)), ("planned", planned)):
        counts = sorted(loads(plan) for _ in range(repeats))
        spread = "" if repeats == 1 else f" ({counts[0]} to {counts[-1]})"
        middle = counts[len(counts) // 2]
        yield f"| {name} | {plan.num_units} | {middle}{spread} | {bound} | {middle / bound:.2f} |"


def zipf_manifest(random: np.random.Generator) -> list[Row]:
    """Return shuffled rows whose LoRA sets are as popular as Zipf's law says (exponent 1)."""
    sets = [(lora(f"{index}-one"), lora(f"{index}-two")) for index in range(NUM_SETS)]
    weights = 1 / np.arange(1, NUM_SETS + 1)
    counts = np.maximum(1, (NUM_ROWS * weights / weights.sum()).round().astype(int))
    chosen = random.permutation(np.repeat(random.permutation(NUM_SETS), counts))
    return [row(index, loras=sets[place]) for index, place in enumerate(chosen.tolist())]


def as_they_come(manifest: Sequence[Row]) -> Plan:
    """Return a plan that cuts units from the rows in their own order."""
    starts = np.append(np.arange(0, len(manifest), ROWS_PER_UNIT), len(manifest))
    return Plan(
        rows=manifest,
        order=np.arange(len(manifest)),
        attempts=np.ones(len(manifest), np.int32),
        starts=starts,
        unit_ids=tuple(hashlib.sha256(str(start).encode()).hexdigest() for start in starts[:-1]),
        num_duplicates=0,
        num_already_made=0,
        num_unusable=0,
        quarantined=(),
    )


def loads(plan: Plan) -> int:
    """Return how many LoRAs the actors read while they made the plan on Ray."""
    # Imported late: Ray reads its environment when it is imported, and its cluster sets it.
    from pipelines.stages.graph import Engine

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        output = LocalStorage(folder / "out")
        write_plan(output, RUN_ID, Phase.IMAGES, plan)
        source = SleepingSource(
            log=folder / "log",
            seconds_a_row=SECONDS_A_ROW,
            seconds_a_load=SECONDS_A_LOAD,
            max_loras=MAX_LORAS,
        )
        work = UnitPhase(
            plan=PlanReader(storage=output, run_id=RUN_ID, phase=Phase.IMAGES),
            load_centroids=CentroidSource(),
            store=store(output, RUN_ID),
        )
        shares = share_cluster(
            Resources(actors=NUM_ACTORS, gpus_per_actor=0, cpus_per_actor=0.1),
            Cluster(cpus=2, gpus=0, is_private=True),
        )
        with Engine(load_model_host=source, load_scorer=None, shares=shares) as engine:
            receipts = engine.make_units(plan, work, is_last=True)
            return sum(receipt.facts.lora_misses for receipt in receipts)
