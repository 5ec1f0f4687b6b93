from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from engine_kit import BASE_MODEL, SAMPLER, lora, row

from clora_core.recipe.cost import first_phase_evaluations, unet_evaluations
from clora_core.recipe.row import Region, Row
from jobs.console.estimate import SharedPhases, estimate
from pipelines.planning.plan_units import plan_units


def units(manifest: list[Row]) -> Iterator[list[Row]]:
    return plan_units(manifest, made=(), failed={}, rows_per_unit=4, attempts=3).members_by_unit()


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


def fused(seed: int, cat: str = "cat", **changes: Any) -> Row:
    """Return a row of ``freefuse`` whose first phase is its seed's, whatever its cat."""
    loras = (lora(cat, subject="cat"), lora("dog"))
    return row(seed, method="freefuse", **{"loras": loras} | changes)


def test_a_first_phase_is_counted_once_for_all_rows_of_a_unit():
    cats = ("cat", "kitten", "tabby", "tom")
    manifest = [fused(0, cat) for cat in cats] + [fused(seed) for seed in (1, 2)]
    each = unet_evaluations("freefuse", 2, SAMPLER)
    saved = 3 * first_phase_evaluations("freefuse", 2, SAMPLER)
    cost = estimate(units(manifest), made())
    assert cost.evaluations == {"freefuse": 6 * each - saved}
    assert cost.shared == SharedPhases(num_rows=4, evaluations=saved)


def test_a_first_phase_that_a_border_divides_is_counted_in_both_units():
    manifest = [fused(0, name) for name in ("cat", "kitten", "tabby", "tom", "old-tom", "ginger")]
    phase = first_phase_evaluations("freefuse", 2, SAMPLER)
    cost = estimate(units(manifest), made())
    assert cost.shared == SharedPhases(num_rows=6, evaluations=4 * phase)


def test_a_row_whose_lora_cannot_be_used_shares_nothing():
    broken = (lora("kitten", subject="cat", problem="not a file"), lora("dog"))
    assert estimate(units([fused(0), fused(0, loras=broken)]), made()).shared == SharedPhases()


def test_rows_that_regions_place_have_no_masks_to_find():
    left = Region(box=(0.0, 0.0, 0.5, 1.0), mode="replace")
    placed = tuple(lora(name, region=left) for name in ("cat", "dog"))
    cost = estimate(units([fused(0, loras=placed), fused(1, loras=placed)]), made())
    assert cost.evaluations == {"freefuse": 2 * 2 * SAMPLER.num_steps}
    assert cost.shared == SharedPhases()


def test_time_is_that_of_rows_which_shared_as_these_do():
    """A committed row records its whole first phase, so its seconds know of the sharing."""
    each = unet_evaluations("freefuse", 2, SAMPLER)
    cost = estimate(units([fused(0), fused(0, "kitten")]), made(("freefuse", 5.0, each)))
    assert cost.seconds == pytest.approx(10.0)
