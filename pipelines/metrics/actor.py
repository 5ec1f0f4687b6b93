"""What each generating actor did, through Ray's own metrics: which actor is slow, or reloads LoRAs.

The run's metrics are the driver's (``pipelines.metrics.run``); these say the same of one actor at a
time, at the metrics port of its machine, under names that Ray begins with ``ray_``. An actor's
series end with it, so sums over a run come from the driver. Labels are closed sets, as there.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pipelines.units.message import UnitMessage

COUNTERS = {
    "clora_actor_rows_total": ("Rows that the actor sampled.", ("method", "status")),
    "clora_actor_unet_evaluations_total": ("Samples through the actor's UNet.", ()),
    "clora_actor_generate_seconds_total": ("Seconds that the actor sampled.", ()),
    "clora_actor_model_loads_total": ("Base models that the actor loaded.", ()),
    "clora_actor_lora_cache_events_total": (
        "Hits, misses, evictions, copies to a GPU.",
        ("event",),
    ),
}
GAUGES = {
    "clora_actor_lora_cache_bytes": ("What the actor's LoRA cache holds.", ()),
    "clora_actor_peak_memory_bytes": ("Peak memory of the actor.", ()),
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One value of one metric."""

    name: str
    value: float
    tags: dict[str, str]


def readings(message: UnitMessage) -> list[Reading]:
    """Return what a generated unit adds to counters, and sets gauges to."""
    rows = message.rows.to_pylist()
    facts = message.facts
    counts = Counter(
        (row["method"], "made" if row["failure"] is None else "failed") for row in rows
    )
    found = [
        Reading(
            name="clora_actor_rows_total", value=count, tags={"method": method, "status": status}
        )
        for (method, status), count in counts.items()
    ]
    events = {
        "hit": facts.lora_hits,
        "miss": facts.lora_misses,
        "evict": facts.lora_evictions,
        "copy": facts.lora_copies,
    }
    found += [
        Reading(name="clora_actor_lora_cache_events_total", value=count, tags={"event": event})
        for event, count in events.items()
    ]
    plain = {
        "clora_actor_unet_evaluations_total": sum(row["unet_evaluations"] or 0 for row in rows),
        "clora_actor_model_loads_total": facts.model_loads,
        "clora_actor_generate_seconds_total": facts.generate_seconds,
        "clora_actor_lora_cache_bytes": facts.lora_cache_bytes,
        "clora_actor_peak_memory_bytes": facts.peak_memory_bytes,
    }
    return found + [Reading(name=name, value=value, tags={}) for name, value in plain.items()]


class ActorMetrics:
    """The metrics of the actor that this is made in."""

    def __init__(self) -> None:
        from ray.util import metrics

        self._counters: dict[str, metrics.Counter] = {
            name: metrics.Counter(name, description=told, tag_keys=tags)
            for name, (told, tags) in COUNTERS.items()
        }
        self._gauges: dict[str, metrics.Gauge] = {
            name: metrics.Gauge(name, description=told, tag_keys=tags)
            for name, (told, tags) in GAUGES.items()
        }

    def observe(self, message: UnitMessage) -> None:
        """Count a generated unit."""
        for reading in readings(message):
            tags: dict[str, Any] = reading.tags
            if reading.name in self._gauges:
                self._gauges[reading.name].set(reading.value, tags=tags)
            elif reading.value > 0:  # Ray refuses to count nothing
                self._counters[reading.name].inc(reading.value, tags=tags)
