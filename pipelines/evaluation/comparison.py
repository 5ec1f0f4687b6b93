"""Arms against each other on equal prompts and seeds.

Differences are taken image by image between images of a pair, and only then averaged, so that what
is hard about a prompt or a seed drops out; their interval is over prompts, like that of the means.
A second interval is over LoRA sets: it is wider, and says how far that carries to other LoRAs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.evaluation.bootstrap import Interval, mean_interval
from pipelines.evaluation.results import METRICS, Result

REFERENCE = "clora"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one arm reached.

    Attributes:
        name: See ``Result.arm``.
        means: By metric; over prompts.
        means_over_sets: The same means, intervals over LoRA sets.
        averaged_first: DINO min with the mean over seeds taken before the minimum over LoRAs.
        keys: Of the rows behind it, sorted.
    """

    name: str
    means: Mapping[str, Interval]
    means_over_sets: Mapping[str, Interval]
    averaged_first: Interval | None
    keys: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An arm less the reference, over pairs of images.

    Attributes:
        arm: The arm.
        reference: What is taken away: the reference method with the same settings.
        by_metric: Mean difference of each metric that both have; interval over prompts.
        by_metric_over_sets: The same, interval over LoRA sets.
        num_pairs: Pairs of images that differ in the method alone.
    """

    arm: str
    reference: str
    by_metric: Mapping[str, Interval]
    by_metric_over_sets: Mapping[str, Interval]
    num_pairs: int


@dataclass(frozen=True, kw_only=True)
class SetScore:
    """The mean of one metric over one LoRA set's images of one arm."""

    lora_set: str
    arm: str
    metric: str
    mean: float
    num_images: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All arms of an output; sorted, the best by the first metric first."""

    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    sets: tuple[SetScore, ...]
    reference: str | None


def compare(results: Sequence[Result], *, reference: str = REFERENCE) -> Comparison:
    """Return the comparison of all arms.

    Args:
        results: From ``read_results``.
        reference: Method that the others are compared with; without images of it there are no
            differences.
    """
    by_arm: dict[str, list[Result]] = {}
    for result in results:
        by_arm.setdefault(result.arm, []).append(result)
    arms = sorted((_arm(name, members) for name, members in by_arm.items()), key=_rank)
    of_reference = {r.pair: r for r in results if r.method == reference}
    differences = [
        difference
        for arm in arms
        if (difference := _difference(arm.name, by_arm[arm.name], of_reference)) is not None
    ]
    return Comparison(
        arms=tuple(arms),
        differences=tuple(differences),
        sets=tuple(_set_scores(by_arm)),
        reference=reference if of_reference else None,
    )


def _rank(arm: Arm) -> tuple[float, str]:
    first = arm.means.get(METRICS[0].name)
    return (-first.mean if first else float("inf"), arm.name)


def _arm(name: str, members: Sequence[Result]) -> Arm:
    return Arm(
        name=name,
        means=_intervals((result.group, result.values) for result in members),
        means_over_sets=_intervals((result.lora_set, result.values) for result in members),
        averaged_first=_averaged_first(members),
        keys=tuple(sorted(result.key for result in members)),
    )


def _intervals(
    values: Iterable[tuple[str | tuple[str, str], Mapping[str, float]]],
) -> dict[str, Interval]:
    listed = list(values)
    found = {
        metric.name: mean_interval(
            (group, each[metric.name]) for group, each in listed if metric.name in each
        )
        for metric in METRICS
    }
    return {name: interval for name, interval in found.items() if interval is not None}


def _averaged_first(members: Sequence[Result]) -> Interval | None:
    """Return the other reading of arXiv 2403.19776: means over a prompt's seeds, then minima."""
    groups: dict[tuple[str, str], list[Mapping[str, float]]] = {}
    for result in members:
        if "dino_min" in result.values:
            groups.setdefault(result.group, []).append(result.lora_scores)
    minima = [
        (group, min(sum(s[name] for s in scores) / len(scores) for name in scores[0]))
        for group, scores in groups.items()
    ]
    return mean_interval(minima)


def _difference(
    name: str, members: Sequence[Result], of_reference: Mapping[tuple[object, ...], Result]
) -> Difference | None:
    pairs = [(one, of_reference[one.pair]) for one in members if one.pair in of_reference]
    pairs = [(one, other) for one, other in pairs if one.method != other.method]
    if not pairs:
        return None
    changes = [
        (
            one,
            {
                name: one.values[name] - other.values[name]
                for name in one.values
                if name in other.values
            },
        )
        for one, other in pairs
    ]
    return Difference(
        arm=name,
        reference=pairs[0][1].arm,
        by_metric=_intervals((one.group, change) for one, change in changes),
        by_metric_over_sets=_intervals((one.lora_set, change) for one, change in changes),
        num_pairs=len(pairs),
    )


def _set_scores(by_arm: Mapping[str, Sequence[Result]]) -> list[SetScore]:
    cells: dict[tuple[str, str, str], list[float]] = {}
    for arm, members in by_arm.items():
        for result in members:
            for name, value in result.values.items():
                cells.setdefault((arm, result.lora_set, name), []).append(value)
    return [
        SetScore(
            lora_set=lora_set,
            arm=arm,
            metric=metric,
            mean=math.fsum(values) / len(values),
            num_images=len(values),
        )
        for (arm, lora_set, metric), values in sorted(cells.items())
    ]
