"""What tests of the engine share: rows of a manifest, a fake engine and scorer, a finished unit.

The fakes are quick and exact: an image is random numbers from the row's seed, and a prompt that
says so makes the engine fail in a given way.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.errors import FusionError, Stage
from clora_core.recipe.fusion import Fusion
from clora_core.recipe.row import Lora, Row
from clora_core.results import ComposedImage, Diagnostics, RowFailure
from manifests.rows.table import row_table
from pipelines.planning.references import ReferenceSettings
from pipelines.request import RunRequest
from pipelines.session.resources import Resources
from pipelines.session.shares import Shares
from pipelines.stages.commit import CommitUnits, commit_unit
from pipelines.stages.fused_work import FusedFile, ReadReference
from pipelines.stages.generate import generate_unit
from pipelines.stages.score import Centroids, score_rows
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import Storage
from pipelines.units.message import HostUse, UnitFacts, UnitMessage
from pipelines.units.receipts import Receipt, read_receipts

SIDE_PX = 8
BASE_MODEL = "ab" * 32
SAMPLER = SamplerConfig()
POISON = "poison"
BAD_ROW = "bad"
EXIT = "exit"
HUNGRY = "hungry"
LOSES_DEVICE = "loses the device twice"
UNFUSABLE = "unfusable"
KILLER = "killer"
"""Names of LoRAs that cannot be fused, or end the process that fuses them."""

PROCESSES_TIMEOUT_S = 180.0
ON_ONE_CPU = Shares(
    num_generators=1,
    max_generators=1,
    generator_cpus=1,
    generator_gpus=0,
    generator_threads=1,
    num_helpers=1,
    helper_cpus=1,
)
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


def lora(name: str = "cat", **changes: Any) -> Lora:
    values: dict[str, Any] = {
        "name": name,
        "uri": f"/loras/{name}.safetensors",
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "kind": "concept",
        "weight": 1.0,
        "subject": name,
        "trigger": f"<{name}>",
        "a1111_hash": hashlib.sha256(f"data of {name}".encode()).hexdigest()[:12],
    }
    return Lora(**(values | changes))


def row(index: int = 0, **changes: Any) -> Row:
    """Return a valid row; its key follows from its fields as far as tests care."""
    values: dict[str, Any] = {
        "base_model_digest": BASE_MODEL,
        "row_id": f"row-{index}",
        "prompt": "a cat and a dog",
        "negative_prompt": "",
        "loras": (lora("cat"), lora("dog")),
        "seed": index,
        "method": "clora",
        "width": SIDE_PX,
        "height": SIDE_PX,
        "sampler": SAMPLER,
        "carried_json": "{}",
    } | changes
    told = {name: value for name, value in values.items() if name != "row_id"}
    key = changes.get("key", hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest())
    return Row(**{**values, "key": key})


def rows(count: int, **changes: Any) -> list[Row]:
    return [row(index, **changes) for index in range(count)]


def pids(log: Path | None) -> set[str]:
    """Return the processes that called the fake engine with this log."""
    return {line.split()[0] for line in log.read_text().splitlines()} if log else set()


def fused_adapter(fusion: Fusion) -> bytes:
    """Return the file of an adapter whose one tensor follows from its key."""
    # Imported late: most tests of the engine need no torch.
    import torch

    from clora_core.fuse.adapter_file import encode_adapter
    from clora_core.fuse.ingredient import FusedAdapter, by_component
    from clora_core.lora.kinds.factor import Factor

    value = int(fusion.key[:4], 16) / 65536
    factor = Factor(torch.full((1, 2), value), torch.ones(2, 1), 1.0)
    adapter = FusedAdapter(factors=by_component({("unet", "layer"): factor}), final_loss=value)
    return encode_adapter(adapter, {"key": fusion.key})


def fusions_of(log: Path) -> list[str]:
    """Return the keys that fake engines with this log were asked to fuse, one for each time."""
    if not log.exists():
        return []
    lines = (line.split() for line in log.read_text().splitlines())
    return [words[2] for words in lines if words[1:2] == ["fused"]]


def loads_of(log: Path) -> list[tuple[str, str]]:
    """Return which process loaded which base model, in order, of fake engines with this log."""
    lines = _loads_log(log).read_text().splitlines()
    return [(pid, digest) for pid, digest in (line.split() for line in lines)]


def _loads_log(log: Path) -> Path:
    return log.with_name(f"{log.name}-loads")


class FakeModelHost:
    """Makes noise from seeds.

    Args:
        log: Gets a line a call: the process, and the seeds of its rows. A file beside it gets a
            line a base model.
        seconds_a_row: How long each row takes.
        processes: Calls wait until so many processes have been called; needs ``log``.
    """

    device = "fake"
    versions_json = json.dumps({"clora-batch": "0.0.0"})

    def __init__(
        self, log: Path | None = None, seconds_a_row: float = 0.0, processes: int = 1
    ) -> None:
        self._log = log
        self._seconds_a_row = seconds_a_row
        self._processes = processes
        self._seen: set[str] = set()
        self._hits = 0
        self._models: list[str] = []

    def hold(self, base_model_digest: str) -> None:
        if self._models[-1:] != [base_model_digest]:
            self._models.append(base_model_digest)
            if self._log is not None:
                with _loads_log(self._log).open("a") as file:
                    file.write(f"{os.getpid()} {base_model_digest}\n")

    def compose(self, rows: Sequence[Row]) -> list[ComposedImage | RowFailure]:
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{os.getpid()} {' '.join(str(row.seed) for row in rows)}\n")
            self._wait_for_processes()
        time.sleep(self._seconds_a_row * len(rows))
        if any(row.prompt == EXIT for row in rows):
            os._exit(1)
        if any(row.prompt == HUNGRY for row in rows):
            eaten = np.ones((5, 1024**3), np.uint8)
            time.sleep(60.0 * eaten[0, 0])
        if any(row.prompt == LOSES_DEVICE and self._num_calls(row.seed) <= 2 for row in rows):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if any(row.prompt == POISON for row in rows):
            raise MemoryError("the machine has no room for this")
        digests = {lora.digest for row in rows for lora in row.loras}
        self._hits += len(digests & self._seen)
        self._seen |= digests
        return [self._one(row, slot, len(rows)) for slot, row in enumerate(rows)]

    def _wait_for_processes(self) -> None:
        """Return once as many processes as the test wants have been called."""
        deadline = time.monotonic() + PROCESSES_TIMEOUT_S
        while len(pids(self._log)) < self._processes:
            if time.monotonic() > deadline:
                os._exit(1)
            time.sleep(0.02)

    def _num_calls(self, seed: int) -> int:
        """Return how often any process was given the row."""
        assert self._log is not None
        lines = self._log.read_text().splitlines()
        return sum(str(seed) in line.split()[1:] for line in lines)

    def fuse(self, fusion: Fusion, _read_reference: ReadReference) -> FusedFile:
        names = [lora.name for lora in fusion.loras]
        if self._log is not None:
            with self._log.open("a") as file:
                file.write(f"{os.getpid()} fused {fusion.key}\n")
        if UNFUSABLE in names:
            raise FusionError(f"{UNFUSABLE} cannot be fused")
        if KILLER in names:
            os._exit(1)
        return FusedFile(content=fused_adapter(fusion), unet_evaluations=3, num_drawn=0)

    def use(self) -> HostUse:
        return HostUse(
            model_loads=len(self._models),
            lora_hits=self._hits,
            lora_misses=len(self._seen),
            peak_memory_bytes=7,
        )

    @staticmethod
    def _one(row: Row, slot: int, size: int) -> ComposedImage | RowFailure:
        if row.prompt == BAD_ROW:
            return RowFailure(stage=Stage.PROMPT, error="PromptError", message="no subject in it")
        noise = np.random.default_rng(row.seed)
        return ComposedImage(
            image=noise.integers(0, 255, (row.height, row.width, 3), dtype=np.uint8),
            diagnostics=Diagnostics(
                losses=(1.5, 0.5),
                mask_coverage=(0.25, 0.5),
                mask_overlap=0.1,
                mask_leakage=(0.5, 0.25),
                unet_evaluations=10,
                seconds=0.01,
                batch_size=size,
                batch_slot=slot,
            ),
        )


class ComposingHost(FakeModelHost):
    """Makes rows with a function."""

    def __init__(
        self, compose: Callable[[Sequence[Row]], list[ComposedImage | RowFailure]]
    ) -> None:
        super().__init__()
        self.compose = compose


def composed_rows(
    rows: Sequence[Row], compose: Callable[[Sequence[Row]], list[ComposedImage | RowFailure]]
) -> tuple[list[dict[str, Any]], int]:
    """Return what becomes of a unit that ``compose`` makes, and how many rows were tried alone."""
    unit = UnitMessage(unit_id="unit", rows=planned_table(rows), facts=UnitFacts())
    made = generate_unit(unit, ComposingHost(compose))
    return made.rows.to_pylist(), made.facts.rows_tried_alone


class FakeModelHostSource:
    """Loads a ``FakeModelHost``, whatever share of a cluster it gets."""

    def __init__(
        self, log: Path | None = None, seconds_a_row: float = 0.0, processes: int = 1
    ) -> None:
        self._arguments = (log, seconds_a_row, processes)

    def __call__(self, _shares: Shares | None = None) -> FakeModelHost:
        return FakeModelHost(*self._arguments)


class FakeScorer:
    """Features are the first pixels, of unit length."""

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        flat = np.stack([image.reshape(-1)[:12].astype(np.float32) + 1 for image in images])
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def store(storage: Storage, run_id: str = "run-1") -> CommitUnits:
    return CommitUnits(storage=storage, run_id=run_id, dino_digest="d")


def planned_table(unit: Sequence[Row], *, attempt: int = 1) -> pa.Table:
    """Return rows of ``schemas.PLANNED_ROW``."""
    attempts = pa.array([attempt] * len(unit), pa.int32())
    return row_table(unit).append_column("attempt", attempts)


def generated(unit: Sequence[Row], *, attempt: int = 1) -> pa.Table:
    """Return rows of ``schemas.GENERATED`` as the fake engine makes them."""
    message = UnitMessage(
        unit_id="unit", rows=planned_table(unit, attempt=attempt), facts=UnitFacts()
    )
    return generate_unit(message, FakeModelHost()).rows


def commit(
    storage: Storage,
    unit_id: str,
    unit: Sequence[Row],
    *,
    attempt: int = 1,
    run_id: str = "run-1",
    centroids: Centroids | None = None,
) -> Receipt:
    """Make and commit a unit without Ray."""
    scored = score_rows(generated(unit, attempt=attempt), FakeScorer(), centroids or {})
    message = UnitMessage(unit_id=unit_id, rows=scored, facts=UnitFacts(device="fake"))
    table = commit_unit(message, store(storage, run_id), now=NOW)
    return next(read_receipts(table))


def request(
    out: Path, manifest: Sequence[Row], *, log: Path | None = None, **changes: Any
) -> RunRequest:
    """Return a request to make ``manifest`` with the fakes."""
    slow = changes.pop("seconds_a_row", 0.0), changes.pop("processes", 1)
    values: dict[str, Any] = {
        "rows": manifest,
        "storage": LocalStorage(out),
        "references_storage": LocalStorage(out / "references"),
        "references_folder": "references",
        "fused_storage": changes.get("storage", LocalStorage(out)),
        "references": {
            BASE_MODEL: ReferenceSettings(num_references=3, sampler=SAMPLER, side_px=SIDE_PX)
        },
        "load_model_host": FakeModelHostSource(log, *slow),
        "load_scorer": FakeScorer,
        "base_model_digest": BASE_MODEL,
        "dino_digest": "d",
        "resources": Resources(rows_per_unit=4),
        "job": {"base_model": "fake"},
    }
    return RunRequest(**(values | changes))


class Watcher:
    """Remembers what a run tells."""

    def __init__(self) -> None:
        self.phases: list[tuple[str, int]] = []
        self.receipts: list[Receipt] = []
        self.notes: list[str] = []

    def begin(self, phase: str, num_rows: int) -> None:
        self.phases.append((phase, num_rows))

    def stored(self, receipt: Receipt) -> None:
        self.receipts.append(receipt)

    def note(self, text: str) -> None:
        self.notes.append(text)
