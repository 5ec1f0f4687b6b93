"""What an evaluation says, in words: where the reference wins, where it does not, what it costs.

A difference is told as one only if its interval leaves 0 out; everything else is said not to be
told apart, which is not the same as equal.
"""

from collections.abc import Sequence

from pipelines.evaluation.comparison import Arm, Comparison, Difference
from pipelines.evaluation.results import METRICS, Metric
from pipelines.evaluation.tables import shown_interval

_JUDGED_BY = ("dino_min", "dino_apart", "presence_all", "identity_all")


def findings(comparison: Comparison) -> list[str]:
    """Return the findings, one paragraph for each figure that decides and one for the cost."""
    paragraphs: list[str] = []
    for name in _JUDGED_BY:
        metric = next(each for each in METRICS if each.name == name)
        scored = [arm for arm in comparison.arms if name in arm.means]
        if len(scored) > 1:
            told = [_best(scored, metric), *_against_reference(comparison, metric)]
            paragraphs.append(f"{metric.label[0].upper()}{metric.label[1:]}: {' '.join(told)}")
    return [*paragraphs, *_cost(comparison)]


def _best(arms: Sequence[Arm], metric: Metric) -> str:
    best = max(arms, key=lambda arm: (arm.means[metric.name].mean, arm.name))
    return f"{best.name} has the highest mean, {shown_interval(best.means[metric.name], metric)}."


def _against_reference(comparison: Comparison, metric: Metric) -> list[str]:
    known = [d for d in comparison.differences if metric.name in d.by_metric]
    apart = [d for d in known if d.by_metric[metric.name].excludes_zero]
    groups = (
        ("is ahead of", [d for d in apart if d.by_metric[metric.name].mean < 0]),
        ("is behind", [d for d in apart if d.by_metric[metric.name].mean > 0]),
        ("cannot be told from", [d for d in known if d not in apart]),
    )
    return [
        f"{comparison.reference} {verb} {_listed(group, metric)}."
        for verb, group in groups
        if group
    ]


def _listed(group: Sequence[Difference], metric: Metric) -> str:
    """Return e.g. ``merge (by 0.090 [0.050, 0.140])``, the reference less the arm."""
    parts: list[str] = []
    for difference in group:
        i = difference.by_metric[metric.name]
        digits = metric.digits
        parts.append(
            f"{difference.arm} ({-i.mean:+.{digits}f} [{-i.high:+.{digits}f}, "
            f"{-i.low:+.{digits}f}])"
        )
    return ", ".join(parts)


def _cost(comparison: Comparison) -> list[str]:
    name = "unet_evaluations"
    known = [arm for arm in comparison.arms if name in arm.means]
    if len(known) < 2:
        return []
    cheapest = min(known, key=lambda arm: (arm.means[name].mean, arm.name))
    parts = [
        f"{arm.name} {arm.means[name].mean:,.0f} "
        f"({arm.means[name].mean / cheapest.means[name].mean:.1f} times {cheapest.name})"
        for arm in sorted(known, key=lambda arm: (-arm.means[name].mean, arm.name))
        if arm is not cheapest
    ]
    least = f"{cheapest.name} {cheapest.means[name].mean:,.0f}"
    return [f"Cost in UNet evaluations an image: {', '.join([*parts, least])}."]
