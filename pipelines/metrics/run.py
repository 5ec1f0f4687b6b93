"""Prometheus metrics of a run, kept in the driver and fed by receipts.

One process exposes them, so nothing is lost when an actor goes and nothing is counted twice. Labels
are closed sets: never a prompt, a row, a LoRA's name or a seed.
"""

import json
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from clora_core.recipe.errors import Stage
from pipelines.units.message import UnitFacts
from pipelines.units.receipts import Receipt

_SECONDS_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600)
_SCORE_BUCKETS = tuple(tenth / 10 for tenth in range(11))
_STAGES = tuple(Stage)
_OTHER = "other"
"""A stage that another release committed a failure with."""


class RunMetrics:
    """The metrics of one run. ``remaining`` starts at the rows that are planned."""

    def __init__(self, num_planned: int) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._rows = counter("clora_rows", "Rows of committed units.", ["method", "status"])
        self._failures = counter(
            "clora_row_failures", "Rows without an image, by the stage that failed.", ["reason"]
        )
        self._stage_seconds = histogram(
            "clora_stage_seconds",
            "Wall time of a unit in a stage.",
            ["stage"],
            buckets=_SECONDS_BUCKETS,
        )
        self._evaluations = counter("clora_unet_evaluations", "Samples through the UNet.")
        self._model_loads = counter(
            "clora_model_loads", "Base models that generating processes loaded, in all phases."
        )
        self._cache_events = counter(
            "clora_lora_cache_events",
            "LoRA cache hits, misses and evictions, and copies to a GPU.",
            ["event"],
        )
        self._cache_bytes = gauge(
            "clora_lora_cache_bytes", "LoRA cache of the actor whose unit came last."
        )
        self._peak_memory = gauge(
            "clora_peak_memory_bytes", "Largest peak memory of a generating process."
        )
        self._fusions = counter(
            "clora_fusions", "Adapters of the fuse phase.", ["method", "status"]
        )
        self._fusion_seconds = histogram(
            "clora_fusion_seconds",
            "Wall time of fusing one adapter.",
            ["method"],
            buckets=_SECONDS_BUCKETS,
        )
        self._scores = histogram(
            "clora_dino_score",
            "Smallest DINO similarity of an image to its LoRAs' references.",
            buckets=_SCORE_BUCKETS,
        )
        self._output_bytes = counter("clora_output_bytes", "Bytes of images and committed units.")
        self._retries = counter("clora_retries", "Rows that were tried again alone.", ["op"])
        self._lost_races = counter(
            "clora_units_committed_elsewhere", "Units that another writer had committed first."
        )
        self._remaining = gauge("clora_rows_remaining", "Planned rows not yet committed.")
        self._build = gauge("clora_build_info", "Versions.", ["version", "torch", "diffusers"])
        # A reason that never was is 0 and not absent, so that its first failure is an increase.
        for reason in (*_STAGES, _OTHER):
            self._failures.labels(reason)
        self._remaining.set(num_planned)
        self._peak_bytes = 0

    def observe(self, receipt: Receipt) -> None:
        """Count a committed unit."""
        for row in receipt.rows:
            self._rows.labels(row.method, "made" if row.made else "failed").inc()
            self._evaluations.inc(row.unet_evaluations)
            if row.dino_min is not None:
                self._scores.observe(row.dino_min)
            if not row.made:
                reason = row.stage if row.stage in _STAGES else _OTHER
                self._failures.labels(reason).inc()
        facts = receipt.facts
        for stage, seconds in (
            ("load_lora", facts.lora_load_seconds),
            ("sample", facts.generate_seconds),
            ("score", facts.score_seconds),
            ("encode", facts.encode_seconds),
            ("write", facts.write_seconds),
        ):
            self._stage_seconds.labels(stage).observe(seconds)
        self._observe_loads(facts)
        self._cache_events.labels("hit").inc(facts.lora_hits)
        self._cache_events.labels("miss").inc(facts.lora_misses)
        self._cache_events.labels("evict").inc(facts.lora_evictions)
        self._cache_events.labels("copy").inc(facts.lora_copies)
        self._cache_bytes.set(facts.lora_cache_bytes)
        self._peak_bytes = max(self._peak_bytes, facts.peak_memory_bytes)
        self._peak_memory.set(self._peak_bytes)
        self._output_bytes.inc(facts.output_bytes)
        self._retries.labels("row_alone").inc(facts.rows_tried_alone)
        self._lost_races.inc(not receipt.committed)
        self._remaining.dec(len(receipt.rows))
        versions = json.loads(facts.versions_json)
        self._build.labels(
            versions.get("clora-batch", ""),
            versions.get("torch", ""),
            versions.get("diffusers", ""),
        ).set(1)

    def observe_reference(self, receipt: Receipt) -> None:
        """Count what a unit of references loaded, which the rows after it need not."""
        self._observe_loads(receipt.facts)

    def observe_fusion(self, receipt: Receipt) -> None:
        """Count an adapter of the fuse phase."""
        self._observe_loads(receipt.facts)
        for row in receipt.rows:
            self._fusions.labels(row.method, "made" if row.made else "failed").inc()
            if not receipt.facts.is_done:
                self._fusion_seconds.labels(row.method).observe(row.seconds)

    def _observe_loads(self, facts: UnitFacts) -> None:
        if facts.model_loads:
            self._stage_seconds.labels("load_model").observe(facts.model_load_seconds)
        self._model_loads.inc(facts.model_loads)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
