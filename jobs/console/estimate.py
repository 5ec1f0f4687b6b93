"""What a plan costs: UNet evaluations by formula, and time by what was measured here before.

Evaluations follow from the method and the settings. Seconds do not, so they are taken from rows of
the same base model, method and size that are committed already, and unknown where there are none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa

from clora_core.recipe.cost import unet_evaluations
from clora_core.recipe.row import Row

COST_COLUMNS = ["base_model_digest", "method", "width", "height", "seconds", "unet_evaluations"]
"""Of the committed rows that an estimate looks at."""

Kind = tuple[str, str, int, int]
"""Base model, method, width, height: what a UNet evaluation's time depends on."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Cost of the rows of a plan.

    Attributes:
        evaluations: Samples through the UNet, by method.
        seconds: On one actor; None if a base model, method and size was never measured.
        unmeasured: Those methods.
    """

    evaluations: Mapping[str, int]
    seconds: float | None
    unmeasured: tuple[str, ...]


def estimate(rows: Iterable[Row], made: pa.Table) -> Estimate:
    """Return the cost of ``rows`` to be made by those that were (``COST_COLUMNS``)."""
    seconds_each = _seconds_each(made)
    evaluations: dict[str, int] = {}
    seconds = 0.0
    unmeasured: set[str] = set()
    cost_of = lru_cache(maxsize=None)(unet_evaluations)
    for row in rows:
        cost = cost_of(row.method, len(row.concepts), row.sampler)
        evaluations[row.method] = evaluations.get(row.method, 0) + cost
        kind = (row.base_model_digest, row.method, row.width, row.height)
        if kind in seconds_each:
            seconds += cost * seconds_each[kind]
        else:
            unmeasured.add(row.method)
    return Estimate(
        evaluations=evaluations,
        seconds=None if unmeasured else seconds,
        unmeasured=tuple(sorted(unmeasured)),
    )


def _seconds_each(made: pa.Table) -> dict[Kind, float]:
    sums: dict[Kind, tuple[float, int]] = {}
    for row in made.to_pylist():
        kind = (row["base_model_digest"], row["method"], row["width"], row["height"])
        seconds, evaluations = sums.get(kind, (0.0, 0))
        sums[kind] = (seconds + row["seconds"], evaluations + row["unet_evaluations"])
    return {kind: seconds / count for kind, (seconds, count) in sums.items() if count}
