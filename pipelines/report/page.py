"""The page: values for the template, and the template filled in.

Every text of a manifest is somebody else's, so the environment escapes all of them; scripts get
theirs as data and set them as text. The page's policy allows its own files and nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from manifests.text.whole_numbers import MAX_EXACT_FLOAT
from pipelines.evaluation.bootstrap import Interval
from pipelines.evaluation.comparison import Comparison
from pipelines.evaluation.evaluate import Evaluation
from pipelines.evaluation.findings import findings
from pipelines.evaluation.results import METRICS, Metric
from pipelines.evaluation.tables import shown_interval, shown_metrics
from pipelines.report.lines import Line
from pipelines.report.plots import bars, heat, histograms, scatter
from pipelines.report.thumbnails import thumbnail_id

ASSETS = ("report.css", "gallery.js", "detail.js")
MAX_FAILURES_LISTED = 200

_QUALITY = METRICS[0]


def page_html(
    evaluation: Evaluation,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    lines: Sequence[Line],
    arms: Sequence[str],
) -> str:
    """Return ``index.html``.

    Args:
        evaluation: Of the output.
        title: Stands over everything.
        facts: (name, value) of how it was made.
        lines: From ``report_lines``.
        arms: From ``report_arms``.
    """
    comparison = evaluation.comparison
    template = _environment().get_template("index.html.j2")
    return template.render(
        shown=shown_interval,
        title=title,
        facts=facts,
        num_images=len(evaluation.results),
        num_failures=len(evaluation.failures),
        num_sets=len({line.lora_set for line in lines}),
        num_prompts=len({line.prompt for line in lines}),
        arms=arms,
        reference=comparison.reference,
        findings=findings(comparison),
        metrics=shown_metrics(comparison),
        comparison=comparison,
        means=_bars_of([(arm.name, arm.means) for arm in comparison.arms]),
        differences=_bars_of(
            [(each.arm, each.by_metric) for each in comparison.differences], with_zero=True
        ),
        quality=_QUALITY,
        cost=_cost_plot(comparison),
        histograms=_histograms(evaluation),
        set_tables=[
            table
            for metric in METRICS
            if metric.higher_is_better and (table := _set_table(comparison, metric))
        ],
        interferences=[_interference(each) for each in evaluation.interferences if each.loras],
        reasons=evaluation.reasons,
        failures=evaluation.failures[:MAX_FAILURES_LISTED],
    )


def index_script(lines: Sequence[Line], arms: Sequence[str], reference: str | None) -> str:
    """Return the script that hands the gallery its lines, as compact as JSON gets.

    A cell is ``[id, score, number]``, and with a fourth entry, the number of its reason, a failure;
    its number is its place in ``ordered_keys``.
    """
    prompts = _numbered(line.prompt for line in lines)
    sets = _numbered(line.lora_set for line in lines)
    reasons = _numbered(c.reason for line in lines for c in line.cells.values() if c.reason)
    number = 0
    listed: list[list[Any]] = []
    for line in lines:
        cells: list[list[Any] | None] = []
        for arm in arms:
            cell = line.cells.get(arm)
            if cell is None:
                cells.append(None)
                continue
            score = None if cell.score is None else round(cell.score, 4)
            entry: list[Any] = [thumbnail_id(cell.key), score, number]
            cells.append(entry if cell.reason is None else [*entry, reasons[cell.reason]])
            number += 1
        listed.append([prompts[line.prompt], sets[line.lora_set], _seed(line.seed), cells])
    index = {
        "arms": list(arms),
        "reference": reference,
        "prompts": list(prompts),
        "sets": list(sets),
        "reasons": list(reasons),
        "lines": listed,
    }
    return f"clora.index({json.dumps(index, separators=(',', ':'))});\n"


def _seed(seed: int) -> int | str:
    """Return the seed as JSON may say it: a browser rounds a number above 2**53 - 1."""
    return seed if seed <= MAX_EXACT_FLOAT else str(seed)


def assets() -> Mapping[str, bytes]:
    """Return the files that every report has, by name."""
    folder = files("pipelines.report").joinpath("assets")
    return {name: folder.joinpath(name).read_bytes() for name in ASSETS}


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipelines.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _numbered(texts: Any) -> dict[str, int]:
    return {text: number for number, text in enumerate(dict.fromkeys(texts))}


def _bars_of(
    named: Sequence[tuple[str, Mapping[str, Interval]]], *, with_zero: bool = False
) -> Any:
    """Return bars of the deciding metric; None if nothing has it."""
    found = [(name, means[_QUALITY.name]) for name, means in named if _QUALITY.name in means]
    return bars(found, with_zero=with_zero) if found else None


def _cost_plot(comparison: Comparison) -> Any:
    cost = "unet_evaluations"
    return scatter(
        [
            (arm.name, arm.means[cost].mean, arm.means[_QUALITY.name])
            for arm in comparison.arms
            if cost in arm.means and _QUALITY.name in arm.means
        ]
    )


def _histograms(evaluation: Evaluation) -> Any:
    scores: dict[str, list[float]] = {arm.name: [] for arm in evaluation.comparison.arms}
    for result in evaluation.results:
        if _QUALITY.name in result.values:
            scores[result.arm].append(result.values[_QUALITY.name])
    return histograms({name: values for name, values in scores.items() if values})


def _set_table(comparison: Comparison, metric: Metric) -> dict[str, Any] | None:
    cells = {(s.lora_set, s.arm): s.mean for s in comparison.sets if s.metric == metric.name}
    if not cells:
        return None
    low, high = min(cells.values()), max(cells.values())
    arms = [arm.name for arm in comparison.arms]
    return {
        "label": metric.label,
        "arms": arms,
        "rows": [
            (lora_set, [_heat_cell(cells.get((lora_set, arm)), low, high) for arm in arms])
            for lora_set in sorted({lora_set for lora_set, _ in cells})
        ],
    }


def _interference(matrix: Any) -> dict[str, Any]:
    known = [value for row in matrix.scores for value in row if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    return {
        "arm": matrix.arm,
        "loras": matrix.loras,
        "rows": [
            (name, [_heat_cell(value, low, high) for value in values])
            for name, values in zip(matrix.loras, matrix.scores, strict=True)
        ],
    }


def _heat_cell(value: float | None, low: float, high: float) -> dict[str, Any]:
    return {"text": "" if value is None else f"{value:.2f}", "heat": heat(value, low, high)}
