from pipelines.evaluation.bootstrap import Interval
from pipelines.evaluation.comparison import Arm, Comparison, Difference
from pipelines.evaluation.findings import findings


def interval(mean: float, low: float, high: float) -> Interval:
    return Interval(mean=mean, low=low, high=high, num_values=8, num_groups=4)


def arm(name: str, score: float, evaluations: float) -> Arm:
    means = {
        "dino_min": interval(score, score - 0.1, score + 0.1),
        "unet_evaluations": interval(evaluations, evaluations, evaluations),
    }
    return Arm(name=name, means=means, means_over_sets=means, averaged_first=None, keys=("k",))


def less_clora(name: str, mean: float, low: float, high: float) -> Difference:
    by_metric = {"dino_min": interval(mean, low, high)}
    return Difference(
        arm=name,
        reference="clora",
        by_metric=by_metric,
        by_metric_over_sets=by_metric,
        num_pairs=8,
    )


def test_only_a_difference_whose_interval_leaves_zero_out_is_told_as_one():
    told = findings(
        Comparison(
            arms=(arm("switch", 0.7, 60), arm("clora", 0.5, 240), arm("merge", 0.4, 60)),
            differences=(
                less_clora("switch", 0.2, 0.1, 0.3),
                less_clora("merge", -0.1, -0.2, -0.05),
                less_clora("composite", -0.1, -0.3, 0.01),
            ),
            sets=(),
            reference="clora",
        )
    )
    assert told == [
        "DINO min: switch has the highest mean, 0.700 [0.600, 0.800]. "
        "clora is ahead of merge (+0.100 [+0.050, +0.200]). "
        "clora is behind switch (-0.200 [-0.300, -0.100]). "
        "clora cannot be told from composite (+0.100 [-0.010, +0.300]).",
        "Cost in UNet evaluations an image: clora 240 (4.0 times merge), "
        "switch 60 (1.0 times merge), merge 60.",
    ]


def test_one_method_alone_has_nothing_to_be_compared_with():
    alone = Comparison(arms=(arm("clora", 0.5, 240),), differences=(), sets=(), reference="clora")
    assert findings(alone) == []
