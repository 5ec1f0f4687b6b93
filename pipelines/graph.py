"""The Ray Data graph: planned units in, receipts out.

    units ─► generate (actors) ─► score (actors) ─► store (tasks) ─► receipts

Every unit is a block of its own from the start: the driver hands units over one by one, because
Ray's Parquet reader packs small files into one block and its reading and repartitioning tasks ask
for a whole processor each, which a one-processor machine with a running actor does not have. The
options below never retry a row's error (Ray would, without end) and never drop a block.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
from ray import data
from ray.data import ActorPoolStrategy, TaskPoolStrategy

from pipelines.engine import LoadEngine
from pipelines.generate import GenerateImages
from pipelines.receipts import Receipt, read_receipts
from pipelines.schemas import PLANNED_ROW
from pipelines.score import Centroids, LoadScorer, ScoreImages
from pipelines.shares import Shares
from pipelines.store import StoreUnits
from pipelines.unit_message import UnitFacts, UnitMessage

__all__ = ["Stages", "make_units"]

SILENT_S = 24 * 3600.0
"""A cold start or a slow model may be silent for longer than Ray's half hour."""


@dataclass(frozen=True, kw_only=True)
class Stages:
    """What each stage does; all of it can be sent to another machine."""

    load_engine: LoadEngine
    load_scorer: LoadScorer | None
    load_centroids: Callable[[], Centroids]
    store: StoreUnits


def make_units(units: Iterable[pa.Table], stages: Stages, shares: Shares) -> Iterator[Receipt]:
    """Make the planned ``units`` (parts of ``schemas.PLAN``); yield their receipts when stored.

    Raises:
        Exception: The machinery failed; rows that are committed stay so.
    """
    # Set here because importing ray.data sets it; its files keep the whole log.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = SILENT_S
    dataset = data.from_arrow(list(_blocks(units)))
    dataset = dataset.map_batches(
        GenerateImages,
        fn_constructor_kwargs={
            "load_engine": stages.load_engine,
            "attempts": stages.store.attempts,
            "fence": stages.store.fence,
        },
        compute=ActorPoolStrategy(size=shares.num_generators),
        num_cpus=shares.generator_cpus,
        num_gpus=shares.generator_gpus or None,
        batch_size=None,
        batch_format="pyarrow",
    )
    dataset = dataset.map_batches(
        ScoreImages,
        fn_constructor_kwargs={
            "load_scorer": stages.load_scorer,
            "load_centroids": stages.load_centroids,
        },
        compute=ActorPoolStrategy(size=shares.num_helpers),
        num_cpus=shares.helper_cpus,
        batch_size=None,
        batch_format="pyarrow",
    )
    dataset = dataset.map_batches(
        stages.store,
        compute=TaskPoolStrategy(size=shares.num_helpers),
        num_cpus=shares.helper_cpus,
        batch_size=None,
        batch_format="pyarrow",
    )
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from read_receipts(batch)


def _blocks(units: Iterable[pa.Table]) -> Iterator[pa.Table]:
    for unit in (unit for part in units for unit in part.to_batches(max_chunksize=1)):
        rows = pa.Table.from_struct_array(unit["rows"].flatten()).cast(PLANNED_ROW)
        message = UnitMessage(unit_id=unit["unit_id"][0].as_py(), rows=rows, facts=UnitFacts())
        yield message.to_batch()
