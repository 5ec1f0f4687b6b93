"""One image as a measurement: which arm made it, what it is compared with, and its figures.

An *arm* is a method on one base model under one choice of sampler settings. Two images are a *pair*
if all but the method is equal; a *group* is a prompt with its LoRAs, the unit that intervals are
taken over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.evaluation.arms import Origin, origin_labels

RESULT_COLUMNS = [
    "key",
    "base_model_digest",
    "row_id",
    "prompt",
    "negative_prompt",
    "loras",
    "seed",
    "method",
    "width",
    "height",
    "sampler_json",
    "dino_min",
    "dino_avg",
    "dino_max",
    "dino_apart",
    "lora_scores",
    "mask_leakage",
    "mask_overlap",
    "unet_evaluations",
    "seconds",
]
"""Of ``schemas.ROWS``; what results are read from."""


_ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure of an image.

    Attributes:
        name: In tables and files.
        label: For people.
        digits: Behind the point.
        higher_is_better: None for a figure that only describes.
    """

    name: str
    label: str
    digits: int = 3
    higher_is_better: bool | None = True


METRICS: tuple[Metric, ...] = (
    Metric(name="dino_min", label="DINO min"),
    Metric(name="dino_avg", label="DINO avg"),
    Metric(name="dino_max", label="DINO max"),
    Metric(name="dino_apart", label="DINO apart"),
    Metric(name="presence_all", label="all found"),
    Metric(name="presence_share", label="share found"),
    Metric(name="identity_all", label="all themselves"),
    Metric(name="doubled", label="doubled", higher_is_better=False),
    Metric(name="clip_text", label="CLIP text"),
    Metric(name="mask_leakage", label="leakage", higher_is_better=False),
    Metric(name="mask_overlap", label="mask overlap", higher_is_better=None),
    Metric(name="unet_evaluations", label="evaluations", digits=0, higher_is_better=False),
    Metric(name="seconds", label="s/image", digits=2, higher_is_better=False),
)
"""All figures, the one that decides first: a picture is as good as its worst concept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """One committed image.

    Attributes:
        key: Of its row.
        row_id: Of its row.
        arm: Method, and the base model and settings that tell it from others of that method.
        method: The method alone.
        base_model_digest: Of what made it.
        lora_set: Names of all LoRAs in order, with weights other than 1.
        prompt: As it was made.
        seed: As it was made.
        pair: Everything that images of a pair have in common.
        values: Figures by metric name; what is not known is not there.
        lora_scores: Likeness to each concept's references, by LoRA name.
    """

    key: str
    row_id: str
    arm: str
    method: str
    base_model_digest: str
    lora_set: str
    prompt: str
    seed: int
    pair: tuple[Any, ...]
    values: Mapping[str, float]
    lora_scores: Mapping[str, float]

    @property
    def group(self) -> tuple[str, str]:
        """Prompt and LoRAs: what intervals are taken over."""
        return (self.prompt, self.lora_set)


def read_results(
    rows: pa.Table,
    more: Mapping[str, Mapping[str, float]] | None = None,
    base_models: Mapping[str, str] | None = None,
) -> list[Result]:
    """Return the results of committed rows, sorted, whatever the order of ``rows``.

    Args:
        rows: ``RESULT_COLUMNS`` of an output.
        more: Further figures by row key, such as what a classifier found.
        base_models: What base models are called, by digest.
    """
    labels = origin_labels(rows, base_models or {})
    # One text for all rows with equal settings, and few rows as Python values at a time.
    same = {text: text for _, text in labels}
    results = [
        _result({**row, "sampler_json": same[row["sampler_json"]]}, labels, more or {})
        for batch in rows.to_batches(max_chunksize=_ROWS_AT_ONCE)
        for row in batch.to_pylist()
    ]
    return sorted(results, key=lambda result: (result.group, result.arm, result.seed, result.key))


def _result(
    row: Mapping[str, Any],
    labels: Mapping[Origin, str],
    more: Mapping[str, Mapping[str, float]],
) -> Result:
    label = labels[row["base_model_digest"], row["sampler_json"]]
    leakage: Sequence[float] = row["mask_leakage"] or ()
    known: dict[str, Any] = {
        metric.name: row[metric.name]
        for metric in METRICS
        if metric.name in row and metric.name != "mask_leakage"
    }
    known["mask_leakage"] = sum(leakage) / len(leakage) if leakage else None
    known |= more.get(row["key"], {})
    lora_set = " + ".join(
        lora["name"] if lora["weight"] == 1 else f"{lora['name']}:{lora['weight']:g}"
        for lora in row["loras"]
    )
    return Result(
        key=row["key"],
        row_id=row["row_id"],
        arm=f"{row['method']} ({label})" if label else row["method"],
        method=row["method"],
        base_model_digest=row["base_model_digest"],
        lora_set=lora_set,
        prompt=row["prompt"],
        seed=row["seed"],
        pair=(
            row["prompt"],
            row["negative_prompt"],
            lora_set,
            row["seed"],
            row["width"],
            row["height"],
            row["sampler_json"],
            row["base_model_digest"],
        ),
        values={name: float(value) for name, value in known.items() if value is not None},
        lora_scores={
            entry["lora"]: entry["score"]
            for entry in row["lora_scores"] or ()
            if entry["score"] is not None
        },
    )
