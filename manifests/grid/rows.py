"""The rows of a grid: its motifs, each with every setting, seed and method.

Sweeps and catalogs are two ways to write down a grid; both end here. Rows of one motif, settings
and seed stand together and differ in the method alone, so whatever differs between their images is
the method's doing.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from manifests.rows.loras import LoraRequest
from manifests.tables.limits import MAX_LINES

MAX_ROWS = MAX_LINES
"""Of one grid: no manifest may hold more."""


@dataclass(frozen=True, kw_only=True)
class Motif:
    """What is drawn, before seeds, settings and methods.

    Attributes:
        name: Of its rows' ids.
        prompt: Written out.
        loras: As its rows ask for them.
        columns: What all its rows say beside these.
        seeds: Each is a row more.
        sampler: Settings of its own, which come before those of the grid.
    """

    name: str = ""
    prompt: str
    loras: Sequence[LoraRequest]
    columns: Mapping[str, Any]
    seeds: Sequence[int]
    sampler: Mapping[str, Any] = field(default_factory=dict[str, Any])


def lora_structs(requests: Sequence[LoraRequest]) -> list[dict[str, Any]]:
    """Return the LoRAs as a list of structs, with all that they say."""
    return [request.model_dump(mode="json", exclude_none=True) for request in requests]


def grid_rows(
    motifs: Iterable[Motif],
    *,
    row_id: str,
    samplers: Sequence[Mapping[str, Any]] = ({},),
    methods: Sequence[str | None] = (None,),
    write_loras: Callable[[Sequence[LoraRequest]], object] = lora_structs,
) -> Iterator[dict[str, Any]]:
    """Yield a manifest row for every combination, methods fastest, then seeds, then settings.

    Args:
        motifs: Read one at a time; there may be millions.
        row_id: How rows are named, with places for ``name``, ``variant`` (of the settings, if there
            are several), ``seed`` and ``method``.
        samplers: Settings, each a row more.
        methods: Each a row more; None leaves the motif's own.
        write_loras: Returns LoRAs as they stand in a row.
    """
    for motif in motifs:
        loras = write_loras(motif.loras)
        for (point, settings), seed, method in product(enumerate(samplers), motif.seeds, methods):
            variant = f"-v{point}" if len(samplers) > 1 else ""
            named = row_id.format(name=motif.name, variant=variant, seed=seed, method=method)
            drawn = {"row_id": named, "prompt": motif.prompt, "loras": loras, "seed": seed}
            row = {**motif.columns, **drawn}
            if method is not None:
                row["method"] = method
            if sampler := {**settings, **motif.sampler}:
                row["sampler"] = json.dumps(sampler, sort_keys=True)
            yield row
