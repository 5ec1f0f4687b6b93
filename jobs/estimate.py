"""What a plan costs: UNet evaluations by formula, and time by what was measured here before.

Evaluations follow from the method and the settings. Seconds do not, so they are taken from rows of
the same base model, method and size that are committed already, and unknown where there are none.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from clora_core.config import SamplerConfig

__all__ = ["COST_COLUMNS", "Estimate", "estimate"]

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


def estimate(units: Iterable[pa.Table], made: pa.Table) -> Estimate:
    """Return the cost of ``units`` (``schemas.PLAN``, in parts) by rows made (``COST_COLUMNS``)."""
    from clora_core.cost import unet_evaluations

    seconds_each = _seconds_each(made)
    evaluations: dict[str, int] = {}
    seconds = 0.0
    unmeasured: set[str] = set()
    costs: dict[tuple[str, int, str], int] = {}
    for unit in (unit for part in units for unit in part.to_pylist()):
        for row in unit["rows"]:
            what = (row["method"], _num_concepts(row), row["sampler_json"])
            if what not in costs:
                config = SamplerConfig.model_validate(json.loads(row["sampler_json"]))
                costs[what] = unet_evaluations(what[0], what[1], config)
            method = row["method"]
            evaluations[method] = evaluations.get(method, 0) + costs[what]
            kind = _kind(row)
            if kind in seconds_each:
                seconds += costs[what] * seconds_each[kind]
            else:
                unmeasured.add(method)
    return Estimate(
        evaluations=evaluations,
        seconds=None if unmeasured else seconds,
        unmeasured=tuple(sorted(unmeasured)),
    )


def _kind(row: Mapping[str, Any]) -> Kind:
    return (row["base_model_digest"], row["method"], row["width"], row["height"])


def _num_concepts(row: Mapping[str, Any]) -> int:
    return sum(lora["kind"] == "concept" for lora in row["loras"])


def _seconds_each(made: pa.Table) -> dict[Kind, float]:
    sums: dict[Kind, tuple[float, int]] = {}
    for row in made.to_pylist():
        kind = _kind(row)
        seconds, evaluations = sums.get(kind, (0.0, 0))
        sums[kind] = (seconds + row["seconds"], evaluations + row["unet_evaluations"])
    return {kind: seconds / count for kind, (seconds, count) in sums.items() if count}
