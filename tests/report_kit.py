"""An output with everything a report has to show: methods, sets, failures, and hostile texts."""

from pathlib import Path

import numpy as np
from engine_kit import BAD_ROW, NOW, FakeModelHost, FakeScorer, generated, lora, row, store

from clora_core.recipe.row import Row
from pipelines.stages.commit import commit_unit
from pipelines.stages.score import score_rows
from pipelines.storage.local import LocalStorage
from pipelines.units.message import UnitFacts, UnitMessage

METHODS = ("clora", "merge", "switch")
HOSTILE = "<script>window.hacked = 1</script> a cat & \"a dog\" <img src=x onerror='hacked=1'>"
HOSTILE_LORA = "<b>felix</b>"


def write_output(folder: Path, *, num_seeds: int = 6) -> LocalStorage:
    """Write an output of three methods, three LoRA sets and four failed rows."""
    storage = LocalStorage(folder)
    sets = [("cat", "dog"), ("cat", "owl"), (HOSTILE_LORA, "dog")]
    made = [
        row(
            seed,
            seed=seed,
            row_id=f"{number}-{seed}-{method}",
            method=method,
            prompt=HOSTILE if number == 2 else f"a {names[0]} and a {names[1]}",
            loras=tuple(map(lora, names)),
        )
        for number, names in enumerate(sets)
        for seed in range(num_seeds)
        for method in METHODS
    ]
    commit_scored(storage, "u1", made)
    broken = (lora("cat", problem=f"the file {HOSTILE} is no LoRA"), lora("dog"))
    failed = [row(seed, seed=seed, prompt=BAD_ROW, method="merge") for seed in range(3)]
    commit_scored(storage, "u2", [*failed, row(9, seed=9, loras=broken, prompt="a cat, a dog")])
    return storage


def commit_scored(storage: LocalStorage, unit_id: str, rows: list[Row]) -> None:
    """Make and commit a unit whose images have scores."""
    names = {one.name: one for each in rows for one in each.loras}
    centroids = {
        f"{one.digest} {one.subject} {one.trigger}": _unit_vector(number)
        for number, one in enumerate(names.values())
    }
    scored = score_rows(generated(rows), FakeScorer(), centroids)
    facts = UnitFacts(device="fake", versions_json=FakeModelHost.versions_json)
    message = UnitMessage(unit_id=unit_id, rows=scored, facts=facts)
    commit_unit(message, store(storage), now=NOW)


def _unit_vector(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).random(12, dtype=np.float32)
    return vector / np.linalg.norm(vector)
