"""The evaluation as files: Markdown and CSV for people, JSON for machines.

``scores.csv`` has a line per image with its row key and every figure; all other numbers are means
over lines of it, and ``table.json`` names the keys behind each arm. So any number can be followed
to the images it is made of.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipelines.evaluation.bootstrap import Interval
from pipelines.evaluation.comparison import Comparison
from pipelines.evaluation.evaluate import Evaluation
from pipelines.evaluation.people_csv import csv_for_people
from pipelines.evaluation.results import METRICS, Metric

_SET_METRICS = ("dino_min", "dino_apart", "presence_all", "identity_all")


def table_files(evaluation: Evaluation) -> dict[str, bytes]:
    """Return the files by name."""
    return {
        "table.md": markdown(evaluation).encode(),
        "table.csv": csv_for_people(_interval_lines(evaluation.comparison)).encode(),
        "scores.csv": csv_for_people(_score_lines(evaluation)).encode(),
        "table.json": json.dumps(_as_json(evaluation), indent=1).encode(),
    }


def shown_metrics(comparison: Comparison) -> list[Metric]:
    """Return the metrics that any arm has."""
    return [m for m in METRICS if any(m.name in arm.means for arm in comparison.arms)]


def shown_interval(interval: Interval | None, metric: Metric, *, signed: bool = False) -> str:
    """Return e.g. ``0.512 [0.490, 0.533]``; a dash for none."""
    if interval is None:
        return "-"
    sign = "+" if signed else ""
    mean, low, high = (
        f"{value:{sign}.{metric.digits}f}" for value in (interval.mean, interval.low, interval.high)
    )
    return mean if interval.low == interval.high else f"{mean} [{low}, {high}]"


def markdown(evaluation: Evaluation) -> str:
    """Return the tables as Markdown."""
    comparison = evaluation.comparison
    if not comparison.arms:
        return "No images.\n"
    parts = [_arms_table(comparison)]
    if comparison.differences:
        parts.append(_differences_table(comparison))
    parts += [_sets_table(comparison, name) for name in _SET_METRICS]
    if evaluation.reasons:
        lines = [["rows", "why they have no image"]]
        lines += [[f"{count:,}", reason] for reason, count in evaluation.reasons]
        parts.append(_table(lines))
    return "\n\n".join(part for part in parts if part) + "\n"


def _arms_table(comparison: Comparison) -> str:
    metrics = shown_metrics(comparison)
    lines = [["method", "images", "prompts", *(metric.label for metric in metrics)]]
    for arm in comparison.arms:
        first = next(iter(arm.means.values()))
        cells = [shown_interval(arm.means.get(metric.name), metric) for metric in metrics]
        lines.append([arm.name, f"{len(arm.keys):,}", f"{first.num_groups:,}", *cells])
    note = (
        "Means over images; in brackets 95 % bootstrap intervals over prompts. "
        "DINO min is the likeness of an image to the references of its worst concept; DINO apart "
        "that of the worst of disjoint windows, one for each concept."
    )
    return f"{_table(lines)}\n\n{note}"


def _differences_table(comparison: Comparison) -> str:
    metrics = shown_metrics(comparison)
    first = metrics[0]
    lines = [
        [
            f"less {comparison.reference}",
            "pairs",
            *(metric.label for metric in metrics),
            f"{first.label}, over LoRA sets",
        ]
    ]
    for difference in comparison.differences:
        cells = [
            shown_interval(difference.by_metric.get(metric.name), metric, signed=True)
            for metric in metrics
        ]
        wide = shown_interval(difference.by_metric_over_sets.get(first.name), first, signed=True)
        lines.append([difference.arm, f"{difference.num_pairs:,}", *cells, wide])
    note = (
        "Differences of images with the same base model, prompt, LoRAs, settings and seed, from "
        f"{comparison.reference}; an interval without 0 is more than the choice of prompts "
        "explains. Intervals over LoRA sets are wider and say how far it carries to other "
        "LoRAs."
    )
    return f"{_table(lines)}\n\n{note}"


def _sets_table(comparison: Comparison, metric_name: str) -> str:
    metric = next(each for each in METRICS if each.name == metric_name)
    cells = {(s.lora_set, s.arm): s for s in comparison.sets if s.metric == metric_name}
    if not cells:
        return ""
    arms = [arm.name for arm in comparison.arms]
    lines = [[f"{metric.label} by LoRA set", *arms]]
    for lora_set in sorted({lora_set for lora_set, _ in cells}):
        found = [cells.get((lora_set, arm)) for arm in arms]
        values = ["-" if cell is None else f"{cell.mean:.{metric.digits}f}" for cell in found]
        lines.append([lora_set, *values])
    return _table(lines)


def _table(lines: Sequence[Sequence[str]]) -> str:
    header, *body = (" | ".join(map(_cell, line)) for line in lines)
    align = " | ".join(["---"] + ["---:"] * (len(lines[0]) - 1))
    return "\n".join(f"| {line} |" for line in (header, align, *body))


def _cell(text: str) -> str:
    """Return text that cannot end a table cell or start HTML."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    return escaped.replace("\n", " ")


def _interval_lines(comparison: Comparison) -> Iterable[Sequence[object]]:
    yield ["kind", "arm", "metric", "mean", "low", "high", "num_values", "num_groups"]
    groups: list[tuple[str, str, Mapping[str, Interval]]] = []
    for arm in comparison.arms:
        groups.append(("mean over prompts", arm.name, arm.means))
        groups.append(("mean over LoRA sets", arm.name, arm.means_over_sets))
        if arm.averaged_first is not None:
            averaged = {"dino_min_of_means": arm.averaged_first}
            groups.append(("mean over prompts", arm.name, averaged))
    for one in comparison.differences:
        groups.append((f"less {one.reference}, over prompts", one.arm, one.by_metric))
        groups.append((f"less {one.reference}, over LoRA sets", one.arm, one.by_metric_over_sets))
    for kind, name, intervals in groups:
        for metric, i in intervals.items():
            yield [kind, name, metric, i.mean, i.low, i.high, i.num_values, i.num_groups]


def _score_lines(evaluation: Evaluation) -> Iterable[Sequence[object]]:
    names = [metric.name for metric in METRICS]
    yield ["key", "row_id", "arm", "method", "lora_set", "prompt", "seed", *names, "lora_scores"]
    for result in evaluation.results:
        values = [result.values.get(name, "") for name in names]
        scores = json.dumps(result.lora_scores, sort_keys=True)
        yield [
            result.key,
            result.row_id,
            result.arm,
            result.method,
            result.lora_set,
            result.prompt,
            result.seed,
            *values,
            scores,
        ]


def _as_json(evaluation: Evaluation) -> dict[str, Any]:
    comparison = evaluation.comparison
    return {
        "metrics": [asdict(metric) for metric in METRICS],
        "arms": [asdict(arm) for arm in comparison.arms],
        "differences": [asdict(difference) for difference in comparison.differences],
        "lora_sets": [asdict(score) for score in comparison.sets],
        "interference": [asdict(matrix) for matrix in evaluation.interferences],
        "failures": [
            {name: error[name] for name in ("key", "row_id", "method", "stage", "error", "message")}
            for error in evaluation.failures
        ],
    }
