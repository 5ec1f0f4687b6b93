"""How the stages share a cluster: pure arithmetic, so that no machine is too small to finish.

A stage that asks for a processor nobody has waits for ever, and Ray's own default is one whole
processor a task. So generating gets what is left when those that score and store have their tenths.
"""

import math
from dataclasses import dataclass

from clora_core.recipe.errors import CloraError
from pipelines.session.resources import Resources

SMALL_STAGE_CPUS = 0.1
RAY_UNITS_PER_CPU = 10_000  # Ray's resources are fixed-point numbers with four decimals


class SharesError(CloraError):
    """The cluster cannot hold what the job asks for; the message names both and the way out."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the cluster has, and whether it is this process's own."""

    cpus: float
    gpus: float
    is_private: bool


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What each stage asks Ray for.

    Attributes:
        num_generators: Actors that sample, at least and from the start.
        max_generators: The most there may be; Ray adds them while units wait and there is room.
        generator_cpus: Logical processors of each.
        generator_gpus: GPUs of each.
        generator_threads: Sampler threads of each; None on a GPU.
        num_helpers: Actors that score and store.
        helper_cpus: Logical processors of each.
    """

    num_generators: int
    max_generators: int
    generator_cpus: float
    generator_gpus: float
    generator_threads: int | None
    num_helpers: int
    helper_cpus: float


def share_cluster(resources: Resources, cluster: Cluster) -> Shares:
    """Return the shares of a job on a cluster; with fewer processors than asked for, smaller ones.

    Raises:
        SharesError: More GPUs are asked for than there will be.
    """
    actors, cpus, gpus = resources.actors, cluster.cpus, cluster.gpus
    # A cluster that others share can add machines, so missing GPUs are worth waiting for.
    may_grow = not cluster.is_private
    gpus_per_actor = resources.gpus_per_actor
    if gpus_per_actor is None:
        gpus_per_actor = 1.0 if gpus >= 1 else 0.0
    if actors * gpus_per_actor > gpus and not may_grow:
        raise SharesError(
            f"resources: {actors} actors with {gpus_per_actor:g} GPUs each need "
            f"{actors * gpus_per_actor:g} GPUs, and there are {gpus:g} here; lower actors or "
            "gpus_per_actor (0 samples on the processor), or name a cluster with --address"
        )
    most = resources.max_actors or actors
    num_helpers = resources.score_actors
    small_cpus = min(SMALL_STAGE_CPUS, cpus / (4 * num_helpers))
    # Where machines are added there are processors for those that come later.
    dividing = actors if may_grow else most
    left = (cpus - num_helpers * small_cpus) / dividing
    return Shares(
        num_generators=actors,
        max_generators=most,
        generator_cpus=_round_down(min(resources.cpus_per_actor, left)),
        generator_gpus=gpus_per_actor,
        generator_threads=None if gpus_per_actor else max(1, int(cpus // dividing)),
        num_helpers=num_helpers,
        helper_cpus=_round_down(small_cpus),
    )


def _round_down(cpus: float) -> float:
    """Round down to what Ray can count, so that the sum of shares stays within the whole."""
    return math.floor(cpus * RAY_UNITS_PER_CPU) / RAY_UNITS_PER_CPU
