"""How the stages share a cluster: pure arithmetic, so that no machine is too small to finish.

A stage that asks for a processor nobody has waits for ever, and Ray's own default is one whole
processor a task. So generating gets what is left when the small stages have their tenths.
"""

import math
from dataclasses import dataclass

from clora_core.errors import CloraError

__all__ = ["Shares", "SharesError", "share_cluster"]

SMALL_STAGE_CPUS = 0.1
RAY_UNITS_PER_CPU = 10_000  # Ray's resources are fixed-point numbers with four decimals


class SharesError(CloraError):
    """The cluster cannot hold what the job asks for; the message names both and the way out."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """What each stage asks Ray for.

    Attributes:
        num_generators: Actors that sample, at least and from the start.
        max_generators: As many at most; Ray adds them while units wait and there is room.
        generator_cpus: Logical processors of each.
        generator_gpus: GPUs of each.
        generator_threads: Sampler threads of each; None on a GPU.
        num_helpers: Score actors, and as many units being stored at once.
        helper_cpus: Logical processors of each score actor and each storing task.
    """

    num_generators: int
    max_generators: int
    generator_cpus: float
    generator_gpus: float
    generator_threads: int | None
    num_helpers: int
    helper_cpus: float


def share_cluster(
    *,
    cpus: float,
    gpus: float,
    actors: int,
    max_actors: int | None = None,
    gpus_per_actor: float | None,
    cpus_per_actor: float,
    score_actors: int,
    may_grow: bool,
) -> Shares:
    """Return the shares of a job on a cluster.

    Args:
        cpus: Logical processors of the cluster.
        gpus: GPUs of the cluster.
        actors: Generators that the job asks for.
        max_actors: Generators that it may have where there is room; None for no more than
            ``actors``.
        gpus_per_actor: GPUs each of them asks for; 0 samples on the processor, None takes one
            where there is one.
        cpus_per_actor: Logical processors each of them asks for; it gets fewer if there are
            fewer.
        score_actors: Score actors that the job asks for.
        may_grow: The cluster can add machines, so missing GPUs are worth waiting for.

    Raises:
        SharesError: More GPUs are asked for than there will be.
    """
    if gpus_per_actor is None:
        gpus_per_actor = 1.0 if gpus >= 1 else 0.0
    if actors * gpus_per_actor > gpus and not may_grow:
        raise SharesError(
            f"resources: {actors} actors with {gpus_per_actor:g} GPUs each need "
            f"{actors * gpus_per_actor:g} GPUs, and there are {gpus:g} here; lower actors or "
            "gpus_per_actor (0 samples on the processor), or name a cluster with --address"
        )
    most = max(actors, max_actors or actors)
    small_cpus = min(SMALL_STAGE_CPUS, cpus / (4 * score_actors))
    # Where machines are added there are processors for those that come later.
    dividing = actors if may_grow else most
    left = (cpus - 2 * score_actors * small_cpus) / dividing
    return Shares(
        num_generators=actors,
        max_generators=most,
        generator_cpus=_round_down(min(cpus_per_actor, left)),
        generator_gpus=gpus_per_actor,
        generator_threads=None if gpus_per_actor else max(1, int(cpus // dividing)),
        num_helpers=score_actors,
        helper_cpus=_round_down(small_cpus),
    )


def _round_down(cpus: float) -> float:
    """Round down to what Ray can count, so that the sum of shares stays within the whole."""
    return math.floor(cpus * RAY_UNITS_PER_CPU) / RAY_UNITS_PER_CPU
