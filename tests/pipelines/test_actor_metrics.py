from typing import Any

import pytest
from engine_kit import BAD_ROW, FakeModelHost, planned_table, row
from engine_kit import rows as manifest_rows

from pipelines.metrics.actor import COUNTERS, GAUGES, readings
from pipelines.stages.generate import generate_unit
from pipelines.units.message import UnitFacts, UnitMessage


def generated(unit: list[Any]) -> UnitMessage:
    message = UnitMessage(unit_id="u", rows=planned_table(unit), facts=UnitFacts())
    return generate_unit(message, FakeModelHost())


def test_readings_are_what_the_engine_did():
    unit = [*manifest_rows(3), row(3, method="merge"), row(4, prompt=BAD_ROW)]
    made = generated(unit)
    told = {(r.name, tuple(sorted(r.tags.items()))): r.value for r in readings(made)}
    rows = "clora_actor_rows_total"
    assert told[rows, (("method", "clora"), ("status", "made"))] == 3
    assert told[rows, (("method", "merge"), ("status", "made"))] == 1
    assert told[rows, (("method", "clora"), ("status", "failed"))] == 1
    assert told["clora_actor_unet_evaluations_total", ()] == 40
    assert told["clora_actor_generate_seconds_total", ()] == made.facts.generate_seconds
    assert told["clora_actor_model_loads_total", ()] == 1
    assert told["clora_actor_lora_cache_events_total", (("event", "miss"),)] == 2
    assert told["clora_actor_peak_memory_bytes", ()] == 7


def test_every_reading_is_declared_with_its_tags():
    declared = {name: set(tags) for name, (_, tags) in {**COUNTERS, **GAUGES}.items()}
    found = {reading.name: set(reading.tags) for reading in readings(generated(manifest_rows(2)))}
    assert found == declared


@pytest.mark.parametrize("word", ["prompt", "row_id", "key", "lora", "seed"])
def test_no_tag_is_open(word: str):
    assert word not in {tag for _, tags in {**COUNTERS, **GAUGES}.values() for tag in tags}
