"""The rows of a grid: its motifs, each with every setting, seed and method.

Sweeps and catalogs are two ways to write down a grid; both end here. Rows of one motif, settings
and seed stand together and differ in the method alone, so whatever differs between their images is
the method's doing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from manifests.manifest_limits import MAX_LINES

__all__ = ["MAX_ROWS", "Motif", "grid_rows"]

MAX_ROWS = MAX_LINES
"""Of one grid: no manifest may hold more."""


@dataclass(frozen=True, kw_only=True)
class Motif:
    """What is drawn, before seeds, settings and methods.

    Attributes:
        name: Of its rows' ids.
        columns: What all its rows say.
        seeds: Each is a row more.
        sampler: Settings of its own, which come before those of the grid.
    """

    name: str
    columns: Mapping[str, Any]
    seeds: Sequence[int]
    sampler: Mapping[str, Any] = field(default_factory=dict[str, Any])


def grid_rows(
    motifs: Iterable[Motif],
    *,
    row_id: str,
    samplers: Sequence[Mapping[str, Any]] = ({},),
    methods: Sequence[str | None] = (None,),
) -> Iterator[dict[str, Any]]:
    """Yield a manifest row for every combination, methods fastest, then seeds, then settings.

    Args:
        motifs: Read one at a time; there may be millions.
        row_id: How rows are named, with places for ``name``, ``variant`` (of the settings, if there
            are several), ``seed`` and ``method``.
        samplers: Settings, each a row more.
        methods: Each a row more; None leaves the motif's own.
    """
    for motif in motifs:
        for (point, settings), seed, method in product(enumerate(samplers), motif.seeds, methods):
            variant = f"-v{point}" if len(samplers) > 1 else ""
            named = row_id.format(name=motif.name, variant=variant, seed=seed, method=method)
            row = {**motif.columns, "row_id": named, "seed": seed}
            if method is not None:
                row["method"] = method
            if sampler := {**settings, **motif.sampler}:
                row["sampler"] = json.dumps(sampler, sort_keys=True)
            yield row
