from collections.abc import Iterator

import pyarrow as pa
import pytest
from engine_kit import BASE_MODEL, SAMPLER, lora, row

from clora_core.recipe.cost import unet_evaluations
from clora_core.recipe.row import Row
from jobs.console.estimate import estimate
from pipelines.planning.plan_units import plan_units


def units(manifest: list[Row]) -> Iterator[Row]:
    return plan_units(manifest, made=(), failed={}, rows_per_unit=4, attempts=3).members()


def made(*rows: tuple[str, float, int]) -> pa.Table:
    """Return committed rows of 8x8 px: method, seconds, evaluations."""
    return pa.Table.from_pylist(
        [
            {
                "base_model_digest": BASE_MODEL,
                "method": m,
                "width": 8,
                "height": 8,
                "seconds": s,
                "unet_evaluations": e,
            }
            for m, s, e in rows
        ]
    )


def test_evaluations_are_the_sampler_s_own_count_for_each_row():
    three = (lora("cat"), lora("dog"), lora("fox"))
    manifest = [row(0), row(1), row(2, method="merge"), row(3, loras=three)]
    config = SAMPLER
    cost = estimate(units(manifest), made())
    assert cost.evaluations == {
        "clora": 2 * unet_evaluations("clora", 2, config) + unet_evaluations("clora", 3, config),
        "merge": unet_evaluations("merge", 2, config),
    }


def test_time_comes_from_rows_of_the_same_method_and_size():
    each = unet_evaluations("clora", 2, SAMPLER)
    cost = estimate(units([row(0), row(1)]), made(("clora", 10.0, 100), ("clora", 30.0, 300)))
    assert cost.seconds == pytest.approx(2 * each * 0.1)


def test_a_method_that_was_never_measured_makes_the_time_unknown():
    cost = estimate(units([row(0), row(1, method="merge")]), made(("clora", 1.0, 100)))
    assert cost.seconds is None
    assert cost.unmeasured == ("merge",)


def test_a_base_model_that_was_never_measured_makes_the_time_unknown():
    manifest = [row(0), row(1, base_model_digest="m2")]
    assert estimate(units(manifest[:1]), made(("clora", 1.0, 100))).seconds is not None
    assert estimate(units(manifest), made(("clora", 1.0, 100))).seconds is None


def test_nothing_to_make_costs_nothing():
    cost = estimate(units([]), made())
    assert cost.seconds == 0
    assert not cost.evaluations
