"""The engine without Ray: every stage in this process, one unit after another.

For tests that ask what is in an output after each write, or that run it hundreds of times.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from pipelines import run
from pipelines.planning.plan import Plan
from pipelines.session.shares import Cluster, Shares
from pipelines.stages.fuse_stage import fuse_one
from pipelines.stages.generate import generate_unit
from pipelines.stages.model_host import LoadModelHost
from pipelines.stages.phases import FusionPhase, UnitPhase
from pipelines.stages.score import LoadScorer, ScoreImages
from pipelines.units.receipts import Receipt, read_receipts

__all__ = ["run_inline"]


def run_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``compose_rows`` make units in this process from now on, to the end of the test."""
    # Imported late: Ray reads its environment when it is imported, and a fixture sets it.
    from pipelines.stages import graph

    monkeypatch.setattr(graph, "Engine", InlineEngine)
    monkeypatch.setattr(run, "cluster_session", _no_cluster)


@contextmanager
def _no_cluster(_address: str | None, **_options: Any) -> Generator[Cluster]:
    yield Cluster(cpus=2.0, gpus=0.0, is_private=True)


class InlineEngine:
    """Makes the phases of a run with one host and one scorer, in place of ``graph.Engine``."""

    def __init__(
        self, *, load_model_host: LoadModelHost, load_scorer: LoadScorer | None, shares: Shares
    ) -> None:
        self._host = load_model_host(shares)
        self._scorer = load_scorer() if load_scorer else None

    def __enter__(self) -> "InlineEngine":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def make_units(self, plan: Plan, work: UnitPhase, **_is_last: bool) -> Generator[Receipt]:
        score = ScoreImages(self._scorer, work.load_centroids, scores_windows=work.scores_windows)
        for units in plan.runs:
            for place in range(units.first, units.first + units.num_units):
                made = work.plan.read(units.part, place)
                if work.store.fence is not None:
                    work.store.fence.check()
                if work.store.claims is not None:
                    made = work.store.claims.claim(made)
                if not made.facts.is_idle:
                    made = generate_unit(made, self._host, work.attempts, fused=work.fused)
                yield from read_receipts(work.store(score(made)))

    def make_fusions(self, work: FusionPhase) -> Generator[Receipt]:
        for fusion in work.fusions:
            yield fuse_one(fusion, self._host, work.into, work.attempts)
