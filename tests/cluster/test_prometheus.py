"""Dashboard and alerts: every expression against a live scrape, every alert seen to fire."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from engine_kit import BAD_ROW, commit, row
from free_ports import free_ports as ports
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_kit import (
    ALERTS,
    DASHBOARD,
    ROOT,
    Prometheus,
    alert_rules,
    dashboard_expressions,
    needs_prometheus,
    prometheus,
)

from pipelines.metrics.actor import COUNTERS, GAUGES
from pipelines.metrics.run import RunMetrics
from pipelines.metrics.server import MetricsAddress, served
from pipelines.storage.local import LocalStorage

OPERATING = ROOT / "docs/operating.md"


class ActorRegistry:
    """Metrics of two actors as Ray exports them: its prefix, and the worker that they are of."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"ray_{name}", told, [*tags, "WorkerId"], registry=self.registry)
            for name, (told, tags) in COUNTERS.items()
        }
        for name in COUNTERS:
            self.count(name)
        for name, (told, _) in GAUGES.items():
            gauge = Gauge(f"ray_{name}", told, ["WorkerId"], registry=self.registry)
            for worker in ("w1", "w2"):
                gauge.labels(worker).set(7)

    def count(self, name: str) -> None:
        """Count something for each actor."""
        tags = COUNTERS[name][1]
        values = ["miss" if tag == "event" else tag for tag in tags]
        for worker in ("w1", "w2"):
            self._counters[name].labels(*values, worker).inc(3)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a run, which makes rows, fails one and reads LoRAs."""
    folder = tmp_path_factory.mktemp("prometheus")
    metrics = RunMetrics(100)
    storage = LocalStorage(folder / "out")
    run, ray = (MetricsAddress(host="127.0.0.1", port=port) for port in ports(2))
    ray_metrics = ActorRegistry()
    targets = {"clora": [str(run)], "ray": [str(ray)]}
    with (
        served(metrics.registry, run),
        served(ray_metrics.registry, ray),
        prometheus(folder, targets) as server,
    ):
        metrics.observe(commit(storage, "u1", [row(0), row(1, prompt=BAD_ROW)]))
        assert server.wait_for("clora_rows_total")
        scored = commit(storage, "u2", [row(2), row(3, method="merge")])
        rows = tuple(replace(one, dino_min=0.7) for one in scored.rows)
        facts = replace(scored.facts, lora_hits=3, lora_misses=1)
        metrics.observe(replace(scored, rows=rows, facts=facts))
        assert server.wait_for('sum(clora_rows_total{status="made"}) == 3')
        for name in COUNTERS:
            ray_metrics.count(name)
        yield server


@needs_prometheus
@pytest.mark.parametrize("panel", dashboard_expressions())
def test_every_panel_has_data(scraped: Prometheus, panel: str):
    expression = dashboard_expressions()[panel]
    assert scraped.wait_for(expression), expression


@needs_prometheus
def test_the_values_are_those_of_the_run(scraped: Prometheus):
    (remaining,) = scraped.query("sum(clora_rows_remaining)")
    assert remaining["value"][1] == "96"
    (failed,) = scraped.query(dashboard_expressions()["Share of rows that failed A"])
    assert failed["value"][1] == "0.25"
    by_method = scraped.query(dashboard_expressions()["Rows by method A"])
    told = {(s["metric"]["method"], s["metric"]["status"]): s["value"][1] for s in by_method}
    assert told == {("clora", "made"): "2", ("clora", "failed"): "1", ("merge", "made"): "1"}


@needs_prometheus
def test_the_server_takes_the_rules_and_finds_each_of_them_healthy(scraped: Prometheus):
    def rules() -> list[dict[str, Any]]:
        (group,) = scraped.get("/api/v1/rules")["groups"]
        return group["rules"]

    assert scraped.wait_for("clora_rows_total")
    assert {rule["name"] for rule in rules()} == {rule["alert"] for rule in alert_rules()}
    assert not [rule["lastError"] for rule in rules() if rule.get("lastError")]


@needs_prometheus
@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_what_an_alert_divides_and_compares_is_there(scraped: Prometheus, rule: dict[str, Any]):
    """Every series that an alert looks at has data, so its silence means something."""
    for name in re.findall(r"clora_\w+", rule["expr"]):
        assert scraped.wait_for(name), name
    scraped.query(rule["expr"])


FIRING = {
    "CloraRowsFail": {
        'clora_rows_total{method="clora",status="made",job="clora",instance="i"}': "0+8x60",
        'clora_rows_total{method="clora",status="failed",job="clora",instance="i"}': "0+2x60",
    },
    "CloraRunStalled": {'clora_rows_remaining{job="clora",instance="i"}': "10x120"},
    "CloraLorasReload": {
        'clora_lora_cache_events_total{event="miss",job="clora",instance="i"}': "0+4x120",
        'clora_lora_cache_events_total{event="hit",job="clora",instance="i"}': "0+1x120",
        'clora_lora_cache_events_total{event="evict",job="clora",instance="i"}': "0+4x120",
    },
    "CloraTwoRunsOnOneOutput": {
        'clora_units_committed_elsewhere_total{job="clora",instance="i"}': "0 0 1x60"
    },
    "CloraUnitsFailWhole": {
        'clora_retries_total{op="row_alone",job="clora",instance="i"}': "0 0+4x60"
    },
}
SILENT = {
    "CloraRowsFail": {
        'clora_rows_total{method="clora",status="made",job="clora",instance="i"}': "0+99x60",
        'clora_rows_total{method="clora",status="failed",job="clora",instance="i"}': "0+1x60",
    },
    "CloraRunStalled": {
        'clora_rows_remaining{job="clora",instance="i"}': "500-1x120",
        'clora_rows_total{method="clora",status="made",job="clora",instance="i"}': "0+1x120",
    },
    "CloraLorasReload": {
        'clora_lora_cache_events_total{event="miss",job="clora",instance="i"}': "0+1x120",
        'clora_lora_cache_events_total{event="hit",job="clora",instance="i"}': "0+4x120",
        'clora_lora_cache_events_total{event="evict",job="clora",instance="i"}': "0+1x120",
    },
    "CloraTwoRunsOnOneOutput": {
        'clora_units_committed_elsewhere_total{job="clora",instance="i"}': "0x60"
    },
    "CloraUnitsFailWhole": {'clora_retries_total{op="row_alone",job="clora",instance="i"}': "0x60"},
}
AT = {"CloraRunStalled": "61m", "CloraLorasReload": "65m", "CloraTwoRunsOnOneOutput": "5m"}


@needs_prometheus
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "silent"])
@pytest.mark.parametrize("rule", alert_rules(), ids=lambda rule: rule["alert"])
def test_an_alert_fires_when_it_should_and_not_when_all_is_well(
    tmp_path: Path, rule: dict[str, Any], fires: bool
):
    name = rule["alert"]
    series = (FIRING if fires else SILENT)[name]
    case = {
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)',
                "eval_time": AT.get(name, "30m"),
                "exp_samples": [{"labels": "{}", "value": int(fires)}],
            }
        ],
    }
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "tests": [case]}))
    done = subprocess.run(["promtool", "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_the_configuration_that_is_shipped_is_valid():
    config = ROOT / "cluster/prometheus/prometheus.yaml"
    done = subprocess.run(["promtool", "check", "config", config], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", [rule["alert"] for rule in alert_rules()])
def test_every_alert_is_explained_to_operators(alert: str):
    assert f"`{alert}`" in OPERATING.read_text()


def test_every_metric_is_on_the_dashboard_and_the_panels_do_not_overlap():
    shown = " ".join(dashboard_expressions().values())
    names = {family.name for family in RunMetrics(1).registry.collect()}
    names |= {f"ray_{name}" for name in (*COUNTERS, *GAUGES)}
    assert not {name for name in names if name not in shown}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["gridPos"]["w"] <= 8 and panel["gridPos"]["h"] <= 7 for panel in panels)
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels)
