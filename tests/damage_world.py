"""A small whole output, and one whose last run was killed, made through the real jobs.

The engine is a fake in this process; everything else is the product.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from io import StringIO
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml
from engine_kit import FakeModelHost, FakeScorer
from inline_engine import run_inline
from input_kit import row, write_base_model, write_catalog, write_jsonl

import jobs.commands.catalog
import jobs.commands.compose
import jobs.commands.plan
import jobs.commands.render
import jobs.run_job
from clora_core.recipe.errors import Stage
from clora_core.recipe.row import Row
from clora_core.results import ComposedImage, RowFailure
from jobs.commands.report import report
from jobs.commands.table import table
from jobs.console.progress import LineProgress
from jobs.job.job_file import JobFile
from jobs.job.run_request import references_folder, run_request
from pipelines.leases.heartbeat import LeaseTimes
from pipelines.planning.references import ReferenceSettings
from pipelines.report.thumbnails import make_thumbnail
from pipelines.request import RunRequest
from pipelines.storage.storage import open_storage

__all__ = ["NUM_ASKED", "TIMES", "ModelHost", "World", "build_worlds", "quick"]

TIMES = LeaseTimes(beat_s=1000.0, silence_s=0.0)
"""A run that may live is looked at once more and then taken for dead, so nobody waits."""

DINO = "d1" * 32
UNLUCKY = "a cat and a dog in the rain"
FIRST = [*(row(row_id=f"r{n}", seed=n) for n in range(3)), row(row_id="r3", prompt=UNLUCKY)]
LATER = row(row_id="r4", seed=4)
CUT_SHORT = row(row_id="r5", seed=5)

NUM_ASKED = {"whole": len(FIRST) + 1, "killed": len(FIRST) + 2}
"""Rows of the manifest, by world."""


class ModelHost(FakeModelHost):
    """Makes every row but those of prompts in ``fails``; calls ``before`` first."""

    def __init__(
        self, *, fails: Collection[str] = (), before: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__()
        self._fails = fails
        self._before = before

    def compose(self, rows: Sequence[Row], **_options: bool) -> list[ComposedImage | RowFailure]:
        self._before()
        return [
            RowFailure(stage=Stage.GENERATE, error="Unlucky", message="not this time")
            if row.prompt in self._fails
            else self._one(row, slot, len(rows))
            for slot, row in enumerate(rows)
        ]


@dataclass(frozen=True)
class World:
    """A folder with a job and its output."""

    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def job(self) -> Path:
        return self.folder / "job.yaml"

    def copy(self, folder: Path) -> "World":
        return World(copytree(self.folder, folder))


def fake_request(engine: ModelHost, job: JobFile, *arguments: Any, **named: Any) -> RunRequest:
    """Return the request of a job, with fakes for everything that needs a model."""
    asked = run_request(job, *arguments, **named)
    folder = f"references/{references_folder(DINO)}"
    one = asked.rows[0]
    references = ReferenceSettings(num_references=1, sampler=one.sampler, side_px=one.width)
    return replace(
        asked,
        load_model_host=lambda _shares: engine,
        load_scorer=FakeScorer,
        dino_digest=DINO,
        references={asked.base_model_digest: references},
        references_storage=open_storage(f"{job.output}/{folder}"),
        references_folder=folder,
        lease_times=TIMES,
    )


def quick(monkeypatch: pytest.MonkeyPatch, engine: ModelHost | None = None) -> None:
    """Let jobs run in this process, with a fake engine and without what only costs time."""
    run_inline(monkeypatch)
    request = partial(fake_request, engine or ModelHost())
    monkeypatch.setattr(jobs.commands.compose, "run_request", request)
    monkeypatch.setattr(jobs.commands.plan, "run_request", request)
    monkeypatch.setattr(
        jobs.run_job, "open_progress", lambda _stream: nullcontext(LineProgress(sys.stderr))
    )
    monkeypatch.setattr(jobs.commands.render, "_composer", lambda *_: ModelHost())
    # Every process that a lease names is gone; one that is damaged names none.
    monkeypatch.setattr("pipelines.leases.lease.is_gone", bool)
    for size in ("TILE_PX", "LABEL_PX"):
        monkeypatch.setattr(f"pipelines.outputs.contact_sheet.{size}", 16)
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    monkeypatch.setattr(ThreadPoolExecutor, "map", lambda _pool, *each: map(*each))


def build_worlds(folder: Path) -> dict[str, World]:
    """Return the outputs by name: ``whole``, and ``killed`` with a row that was being made."""
    inputs, world = folder / "inputs", World(folder / "whole")
    world.folder.mkdir(parents=True)
    settings = {
        "manifest": "rows.jsonl",
        "output": "out",
        "loras": str(write_catalog(inputs / "loras")),
        "base_model": str(write_base_model(inputs / "base", sample_size=2)),
        "resources": {"rows_per_unit": 3},
    }
    world.job.write_text(yaml.safe_dump(settings))
    killed = World(folder / "killed")
    with redirect_stdout(StringIO()) as said, redirect_stderr(said):
        assert _run(world, FIRST, jobs.commands.compose.compose, ModelHost(fails=[UNLUCKY])) == 1
        for rows in (FIRST, [*FIRST, LATER]):
            assert _run(world, rows, _publish, ModelHost()) == 0, said.getvalue()
        assert report(str(world.out)) == table(str(world.out)) == 0
        _draw_maps(world)
        copied = world.copy(folder / "continued")
        killing = ModelHost(before=partial(copied.copy, killed.folder))
        _run(copied, [*FIRST, LATER, CUT_SHORT], jobs.commands.compose.compose, killing)
    return {"whole": world, "killed": killed}


def _publish(job: Path) -> int:
    return jobs.commands.catalog.catalog(job, make_request=jobs.commands.compose.run_request)


def _run(
    world: World, rows: Sequence[dict[str, Any]], command: Callable[[Path], int], engine: ModelHost
) -> int:
    write_jsonl(world.folder / "rows.jsonl", rows)
    with pytest.MonkeyPatch.context() as patch:
        quick(patch, engine)
        return command(world.job)


def _draw_maps(world: World) -> None:
    """Leave the attention maps of an image, as ``clora render --maps`` does."""
    image = min((world.out / "images").glob("*/*.png"))
    maps = world.out / "maps" / f"{image.stem}.webp"
    maps.parent.mkdir()
    maps.write_bytes(make_thumbnail(image.read_bytes()))
