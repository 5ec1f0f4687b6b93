"""What the planned rows have in common, each once: models, concepts and fused adapters.

What else a run has to make follows from these, so nobody has to go through all rows for it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pyarrow as pa

from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Lora, Row
from manifests.rows.checked_rows import shared_values
from manifests.tables.arrays import one_array

Concept = tuple[str, Lora]
"""Digest of a base model, and a concept LoRA on it as it is alone: weight 1, the whole image."""


@dataclass(frozen=True, kw_only=True)
class PlanUses:
    """What rows have in common.

    Attributes:
        models: Rows by digest of their base model.
        concepts: Of rows whose LoRA files can all be used, and of others those that can.
        fused: Rows by their ``shared_json``, of methods that sample with a fused adapter.
    """

    models: Counter[str] = field(default_factory=Counter[str])
    concepts: frozenset[Concept] = frozenset()
    fused: Counter[str] = field(default_factory=Counter[str])

    def fused_rows(self) -> Iterable[tuple[Row, int]]:
        """Yield a row for each kind of row that is sampled with a fused adapter, and how many."""
        for text, count in self.fused.items():
            yield Row(prompt="", seed=0, **shared_values(text)), count


def uses_of(rows: pa.Table) -> PlanUses:
    """Return what the rows of a table with ``shared_json`` have in common."""
    models, fused = Counter[str](), Counter[str]()
    concepts: set[Concept] = set()
    for found in one_array(rows["shared_json"]).value_counts().to_pylist():
        text, count = found["values"], found["counts"]
        values = shared_values(text)
        models[values["base_model_digest"]] += count
        concepts |= concepts_of([Row(prompt="", seed=0, **values)])
        if METHODS[values["method"]].fused_by is not None:
            fused[text] += count
    return PlanUses(models=models, concepts=frozenset(concepts), fused=fused)


def concepts_of(rows: Iterable[Row]) -> frozenset[Concept]:
    """Return the concept LoRAs of ``rows`` whose files can be used."""
    return frozenset(
        (row.base_model_digest, replace(lora, weight=1.0, region=None))
        for row in rows
        for lora in row.concepts
        if lora.problem is None
    )


def uses_together(parts: Iterable[PlanUses]) -> PlanUses:
    """Return what the rows of several tables have in common."""
    models, fused = Counter[str](), Counter[str]()
    concepts: set[Concept] = set()
    for part in parts:
        models += part.models
        fused += part.fused
        concepts |= part.concepts
    return PlanUses(models=models, concepts=frozenset(concepts), fused=fused)
