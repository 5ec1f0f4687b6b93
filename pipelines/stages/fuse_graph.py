"""The Ray Data graph of the fuse phase: fusions in, receipts out, on the actors' own terms.

Its actors ask for what generating actors ask for, and are gone before those start: a GPU has room
for one base model.
"""

from collections.abc import Generator, Sequence
from functools import partial

import pyarrow as pa
from ray import data
from ray.data import ActorPoolStrategy
from ray.exceptions import RayTaskError

from clora_core.recipe.fusion import Fusion
from pipelines.session.shares import Shares
from pipelines.stages.fuse_stage import (
    CommitFused,
    FuseLoras,
    FusionReceipt,
    read_fusion_receipts,
)
from pipelines.stages.graph import WHOLE_BLOCKS, own_error, set_up_ray_data
from pipelines.stages.model_host import LoadModelHost


def make_fusions(
    fusions: Sequence[Fusion],
    load_model_host: LoadModelHost,
    into: CommitFused,
    shares: Shares,
) -> Generator[FusionReceipt]:
    """Make adapters that no other run makes; yield a receipt of each.

    Raises:
        StorageError, StoreAwayError, LeaseLostError: A stage met it.
        Exception: The machinery failed; adapters that are committed stay so.
    """
    set_up_ray_data()
    most = min(shares.max_generators, len(fusions))
    receipts = data.from_blocks(
        [pa.table({"ticket": [n]}) for n in range(len(fusions))]
    ).map_batches(
        FuseLoras,
        fn_constructor_kwargs={
            "fusions": tuple(fusions),
            "load_model_host": partial(load_model_host, shares),
            "into": into,
        },
        compute=ActorPoolStrategy(min_size=min(shares.num_generators, most), max_size=most),
        num_cpus=shares.generator_cpus,
        num_gpus=shares.generator_gpus or None,
        **WHOLE_BLOCKS,
    )
    try:
        for batch in receipts.iter_batches(prefetch_batches=0, **WHOLE_BLOCKS):
            yield from read_fusion_receipts(batch)
    except RayTaskError as error:
        raise own_error(error) from error
