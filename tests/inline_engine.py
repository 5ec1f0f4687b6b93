"""The engine without Ray: every stage in this process, one unit after another.

For tests that ask what is in an output after each write, or that run it hundreds of times.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from clora_core.recipe.fusion import Fusion
from pipelines import run
from pipelines.planning.plan import Plan
from pipelines.session.shares import Cluster, Shares
from pipelines.stages.fuse_stage import CommitFused, FusionReceipt, fuse_one
from pipelines.stages.generate import generate_unit
from pipelines.stages.model_host import LoadModelHost
from pipelines.stages.score import ScoreImages
from pipelines.units.receipts import Receipt, read_receipts

__all__ = ["run_inline"]


def run_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``compose_rows`` make units in this process from now on, to the end of the test."""
    # Imported late: Ray reads its environment when it is imported, and a fixture sets it.
    from pipelines.stages import fuse_graph, graph

    monkeypatch.setattr(graph, "make_units", _make_units)
    monkeypatch.setattr(fuse_graph, "make_fusions", _make_fusions)
    monkeypatch.setattr(run, "cluster_session", _no_cluster)


@contextmanager
def _no_cluster(_address: str | None, **_options: Any) -> Generator[Cluster]:
    yield Cluster(cpus=2.0, gpus=0.0, is_private=True)


def _make_units(plan: Plan, stages: Any, shares: Shares) -> Generator[Receipt]:
    engine = stages.load_model_host(shares)
    score = ScoreImages(
        stages.load_scorer, stages.load_centroids, scores_windows=stages.scores_windows
    )
    for units in plan.runs:
        for place in range(units.first, units.first + units.num_units):
            made = stages.plan.read(units.part, place)
            if stages.store.fence is not None:
                stages.store.fence.check()
            if stages.store.claims is not None:
                made = stages.store.claims.claim(made)
            if not made.facts.is_idle:
                made = generate_unit(made, engine, stages.store.attempts, fused=stages.fused)
            yield from read_receipts(stages.store(score(made)))


def _make_fusions(
    fusions: Sequence[Fusion], load_model_host: LoadModelHost, into: CommitFused, shares: Shares
) -> Generator[FusionReceipt]:
    host = load_model_host(shares)
    for fusion in fusions:
        yield fuse_one(fusion, host, into, into.attempts)
