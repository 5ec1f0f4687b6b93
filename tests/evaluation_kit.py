"""Committed rows as the evaluation reads them, each test stating what it is about."""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.evaluation.results import RESULT_COLUMNS
from pipelines.units.schemas import ROWS


def result_row(
    key: str, method: str, seed: int, scores: dict[str, float], **changes: Any
) -> dict[str, Any]:
    """Return a row whose concepts have these likenesses to their references."""
    known = list(scores.values())
    values: dict[str, Any] = {
        "key": key,
        "base_model_digest": "m1",
        "row_id": f"row {key}",
        "prompt": "p1",
        "negative_prompt": "",
        "loras": [
            {"name": name, "weight": 1.0, "kind": "concept", "subject": name, "trigger": None,
             "region_json": None, "digest": name * 4, "uri": ""}
            for name in scores
        ],
        "seed": seed,
        "method": method,
        "width": 64,
        "height": 64,
        "sampler_json": json.dumps({"num_steps": 30}),
        "dino_min": min(known),
        "dino_avg": sum(known) / len(known),
        "dino_max": max(known),
        "dino_apart": None,
        "lora_scores": [{"lora": name, "score": score} for name, score in scores.items()],
        "mask_leakage": None,
        "mask_overlap": None,
        "unet_evaluations": 10,
        "seconds": 2.0,
    }  # fmt: skip
    return values | changes


def table(rows: Sequence[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([ROWS.field(name) for name in RESULT_COLUMNS])
    return pa.Table.from_pylist(list(rows), schema=schema)


FIXTURE = [
    result_row("k1", "clora", 0, {"a": 0.5, "b": 0.75}, mask_leakage=[0.25, 0.5]),
    result_row("k2", "clora", 1, {"a": 0.5, "b": 0.25}, unet_evaluations=30),
    result_row("k3", "clora", 0, {"a": 1.0, "c": 0.5}, prompt="p2"),
    result_row("k4", "merge", 0, {"a": 0.25, "b": 0.25}, seconds=1.0),
    result_row("k5", "merge", 1, {"a": 0.0, "b": 0.5}),
    result_row("k6", "merge", 7, {"a": 1.0, "b": 1.0}),
    result_row("k7", "merge", 0, {"a": 0.75, "c": 0.75}, prompt="p2"),
]
"""Seven images of two prompts; seed 7 has no partner."""
