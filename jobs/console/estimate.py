"""What a plan costs: UNet evaluations by formula, and time by what was measured here before.

Evaluations follow from the method and the settings. Seconds do not, so they are taken from rows of
the same base model, method and size that are committed already, and unknown where there are none.

Rows of one unit share equal first phases. A committed row records its whole first phase, so the
time of an evaluation measured here has the sharing in it, and seconds are estimated without taking
it off a second time.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from clora_core.recipe.cost import first_phase_evaluations, unet_evaluations
from clora_core.recipe.first_phase import first_phase, has_first_phase
from clora_core.recipe.row import Row

COST_COLUMNS = ["base_model_digest", "method", "width", "height", "seconds", "unet_evaluations"]
"""Of the committed rows that an estimate looks at."""

Kind = tuple[str, str, int, int]
"""Base model, method, width, height: what a UNet evaluation's time depends on."""


@dataclass(frozen=True, kw_only=True)
class SharedPhases:
    """First phases that several rows of one unit have in common.

    Attributes:
        num_rows: Rows that share theirs with another.
        evaluations: Samples through the UNet that sharing saves.
    """

    num_rows: int = 0
    evaluations: int = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cost of the rows of a plan.

    Attributes:
        evaluations: Samples through the UNet, by method; what rows share is counted once.
        shared: What that left out.
        seconds: On one actor; None if a base model, method and size was never measured.
        unmeasured: Those methods.
    """

    evaluations: Mapping[str, int]
    shared: SharedPhases
    seconds: float | None
    unmeasured: tuple[str, ...]


def estimate(units: Iterable[Sequence[Row]], made: pa.Table) -> Estimate:
    """Return the cost of the rows of ``units`` by those that were made (``COST_COLUMNS``)."""
    seconds_each = _seconds_each(made)
    evaluations: Counter[str] = Counter()
    num_sharing = saved = 0
    seconds = 0.0
    unmeasured: set[str] = set()
    cost_of = lru_cache(maxsize=None)(unet_evaluations)
    for unit in units:
        for row in unit:
            cost = cost_of(row.method, len(row.concepts), row.sampler, is_placed=row.is_placed)
            evaluations[row.method] += cost
            kind = (row.base_model_digest, row.method, row.width, row.height)
            if kind in seconds_each:
                seconds += cost * seconds_each[kind]
            else:
                unmeasured.add(row.method)
        shared = shared_phases(unit)
        evaluations[unit[0].method] -= shared.evaluations
        num_sharing += shared.num_rows
        saved += shared.evaluations
    return Estimate(
        evaluations=evaluations,
        shared=SharedPhases(num_rows=num_sharing, evaluations=saved),
        seconds=None if unmeasured else seconds,
        unmeasured=tuple(sorted(unmeasured)),
    )


def shared_phases(unit: Sequence[Row]) -> SharedPhases:
    """Return what the rows of one unit, which are of one method and its settings, share."""
    leader = unit[0]
    if not has_first_phase(leader.method, leader.sampler):
        return SharedPhases()
    # A row whose LoRA file cannot be used is not sampled, so it shares nothing.
    found = (first_phase(row) for row in unit if row.problem is None)
    counts = Counter(phase for phase in found if phase is not None)
    each = first_phase_evaluations(leader.method, len(leader.concepts), leader.sampler)
    return SharedPhases(
        num_rows=sum(count for count in counts.values() if count > 1),
        evaluations=each * sum(count - 1 for count in counts.values()),
    )


def _seconds_each(made: pa.Table) -> dict[Kind, float]:
    sums: dict[Kind, tuple[float, int]] = {}
    for row in made.to_pylist():
        kind = (row["base_model_digest"], row["method"], row["width"], row["height"])
        seconds, evaluations = sums.get(kind, (0.0, 0))
        sums[kind] = (seconds + row["seconds"], evaluations + row["unet_evaluations"])
    return {kind: seconds / count for kind, (seconds, count) in sums.items() if count}
