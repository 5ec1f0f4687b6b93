from dataclasses import replace
from pathlib import Path

import pytest
from engine_kit import BAD_ROW, commit, row
from prometheus_client.parser import text_string_to_metric_families

from pipelines.metrics.run import RunMetrics
from pipelines.storage.local import LocalStorage

FORBIDDEN_LABELS = {"prompt", "row_id", "key", "lora", "seed"}


def samples(metrics: RunMetrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.text().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_receipt_moves_rows_failures_and_what_remains(tmp_path: Path):
    metrics = RunMetrics(10)
    receipt = commit(LocalStorage(tmp_path), "u1", [row(0), row(1), row(2, prompt=BAD_ROW)])
    metrics.observe(receipt)
    told = samples(metrics)
    assert told["clora_rows_total", (("method", "clora"), ("status", "made"))] == 2
    assert told["clora_rows_total", (("method", "clora"), ("status", "failed"))] == 1
    assert told["clora_row_failures_total", (("reason", "prompt"),)] == 1
    assert told["clora_rows_remaining", ()] == 7
    assert told["clora_unet_evaluations_total", ()] == 20
    assert told["clora_output_bytes_total", ()] == receipt.facts.output_bytes > 0


def test_labels_are_closed_sets(tmp_path: Path):
    metrics = RunMetrics(1)
    metrics.observe(commit(LocalStorage(tmp_path), "u1", [row(0)]))
    labels = {name for _, pairs in samples(metrics) for name, _ in pairs}
    assert not labels & FORBIDDEN_LABELS


@pytest.mark.parametrize("name", ["clora_stage_seconds", "clora_dino_score"])
def test_distributions_are_histograms(tmp_path: Path, name: str):
    metrics = RunMetrics(1)
    metrics.observe(commit(LocalStorage(tmp_path), "u1", [row(0)]))
    assert f"# TYPE {name} histogram" in metrics.text().decode()


def test_base_models_count_in_the_phase_that_loads_them(tmp_path: Path):
    metrics = RunMetrics(1)
    receipt = commit(LocalStorage(tmp_path), "u1", [row(0)])
    loaded = replace(receipt.facts, model_loads=1, model_load_seconds=2.5)
    metrics.observe_reference(replace(receipt, facts=loaded))
    metrics.observe(receipt)
    told = samples(metrics)
    assert told["clora_model_loads_total", ()] == 1
    assert told["clora_stage_seconds_sum", (("stage", "load_model"),)] == 2.5
    assert told["clora_rows_total", (("method", "clora"), ("status", "made"))] == 1
