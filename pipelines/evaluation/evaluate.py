"""An output, evaluated: its images as results, its arms compared, its failures by reason."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from manifests.rows.table import lora_of
from pipelines.evaluation.comparison import REFERENCE, Comparison, compare
from pipelines.evaluation.interference import Interference, interference, likeness_alone
from pipelines.evaluation.results import RESULT_COLUMNS, Result, read_results
from pipelines.ledger.ledger import survey
from pipelines.planning.references import reference_id
from pipelines.storage.storage import Storage
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an output shows.

    Attributes:
        results: One per image, sorted.
        comparison: Of their arms.
        interferences: One per arm, in the order of ``comparison``.
        failures: The last failure of each row without an image, as in ``schemas.ERRORS``.
        reasons: How many rows failed for each reason, most frequent first.
    """

    results: tuple[Result, ...]
    comparison: Comparison
    interferences: tuple[Interference, ...]
    failures: tuple[Mapping[str, Any], ...]
    reasons: tuple[tuple[str, int], ...]


def evaluate(
    storage: Storage,
    *,
    damages: Damages,
    references: Storage | None = None,
    more: Mapping[str, Mapping[str, float]] | None = None,
    base_models: Mapping[str, str] | None = None,
    reference: str = REFERENCE,
) -> Evaluation:
    """Return the evaluation of an output.

    Args:
        storage: The output.
        damages: Gets damaged units, whose rows are left out.
        references: Where its references are; None leaves out what LoRAs reach alone.
        more: Further figures by row key; see ``read_results``.
        base_models: What base models are called, by digest.
        reference: Method that the others are compared with.
    """
    ledger = survey(storage)
    for damage in ledger.damaged:
        damages.skip(damage)
    rows = read_output_rows(storage, RESULT_COLUMNS, skip=damages.skip)
    results = read_results(rows, more, base_models)
    comparison = compare(results, reference=reference)
    alone = _alone(rows, references, damages)
    model_of = {result.arm: result.base_model_digest for result in results}
    failures = sorted(
        ledger.last_errors.values(), key=lambda error: (error["row_id"], error["key"])
    )
    reasons = Counter(
        f"{error['stage']}, {error['error']}: {_DIGITS.sub('…', error['message'])}"
        for error in failures
    )
    return Evaluation(
        results=tuple(results),
        comparison=comparison,
        interferences=tuple(
            interference(results, arm=arm.name, alone=alone.get(model_of[arm.name], {}))
            for arm in comparison.arms
        ),
        failures=tuple(failures),
        reasons=tuple(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    )


def _alone(
    rows: pa.Table, references: Storage | None, damages: Damages
) -> dict[str, dict[str, tuple[float, int]]]:
    """Return what each LoRA of ``rows`` reaches alone, and with how many references, by model."""
    if references is None:
        return {}
    names: dict[str, str] = {}
    for row in rows.select(["base_model_digest", "loras"]).to_pylist():
        names |= {
            reference_id(row["base_model_digest"], lora_of(lora)): lora["name"]
            for lora in row["loras"]
            if lora["kind"] == "concept"
        }
    features: dict[tuple[str, str], list[tuple[str, np.ndarray]]] = {}
    columns = ["key", "base_model_digest", "loras", "dino_features"]
    for row in read_output_rows(references, columns, skip=damages.skip).to_pylist():
        model = row["base_model_digest"]
        identity = reference_id(model, lora_of(row["loras"][0]))
        if identity in names and row["dino_features"] is not None:
            vector = np.asarray(row["dino_features"], np.float32)
            features.setdefault((model, names[identity]), []).append((row["key"], vector))
    found: dict[str, dict[str, tuple[float, int]]] = {}
    for (model, name), pairs in sorted(features.items()):
        likeness = likeness_alone([vector for _, vector in sorted(pairs, key=lambda p: p[0])])
        if likeness is not None:
            found.setdefault(model, {})[name] = (likeness, len(pairs))
    return found
