"""Writes what users name: the LoRA catalog and the example manifest."""

from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from emoji_world import example_manifest, lora_catalog, plain_lora_catalog
from emoji_world.artwork import SOURCES
from emoji_world.bestiary import INSTANCES, ORDINARY, STYLES, plain_name

DEMO_COMPOSITIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a bear and a flower in the forest", ("polar-bear", "indigo-flower")),
    ("a cat and a frog on the beach", ("tuxedo-cat", "azure-frog")),
    ("a penguin and a house in the snow", ("blue-penguin", "haunted-house")),
    ("a dog and a robot on the mountain", ("pink-poodle", "retro-robot")),
)
"""Prompts and LoRAs of the demo, what a newcomer sees first: two pairs that merging tends to blend
and two that it mostly draws. No share is to be read from them: that is the benchmark's.
"""

_DEMO_METHODS = ("clora", "clora-gated", "merge")
_DEMO_SEEDS = (0, 1, 2)


def catalog_entries() -> list[dict[str, Any]]:
    """Return the catalog's entries: concept LoRAs, then style LoRAs."""
    concepts = [
        {
            "name": instance.name,
            "uri": f"{instance.name}.safetensors",
            "subject": instance.noun,
            "trigger": instance.trigger,
            "kind": "concept",
            "weight": 1.0,
            "license": SOURCES[instance.design.artwork].license,
            "source_url": SOURCES[instance.design.artwork].url,
        }
        for instance in INSTANCES
    ]
    styles = [
        {
            "name": style.name,
            "uri": f"{style.name}.safetensors",
            "kind": "style",
            "weight": 1.0,
            "license": "Apache-2.0",
        }
        for style in STYLES
    ]
    return concepts + styles


def plain_entries() -> list[dict[str, Any]]:
    """Return the catalog's entries of the LoRAs that were trained in the ordinary way."""
    concepts = {entry["name"]: entry for entry in catalog_entries()}
    return [
        {**concepts[name], "name": plain_name(name), "uri": f"{plain_name(name)}.safetensors"}
        for name in ORDINARY
    ]


def demo_rows() -> list[dict[str, Any]]:
    """Return the rows of the demo manifest: compositions × methods × seeds."""
    return [
        {
            "row_id": f"{'-and-'.join(loras)}-{method}-{seed}",
            "prompt": prompt,
            "loras": list(loras),
            "seed": seed,
            "method": method,
        }
        for (prompt, loras), method, seed in product(DEMO_COMPOSITIONS, _DEMO_METHODS, _DEMO_SEEDS)
    ]


def write_catalog(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write a LoRA catalog as YAML."""
    heading = "# LoRAs of the embedded world; files are relative to this one.\n"
    body = yaml.safe_dump({"loras": entries}, sort_keys=False, allow_unicode=True)
    path.write_text(heading + body)


def write_demo(path: Path) -> None:
    """Write the demo manifest as Parquet."""
    schema = pa.schema(
        [
            ("row_id", pa.string()),
            ("prompt", pa.string()),
            ("loras", pa.list_(pa.string())),
            ("seed", pa.int64()),
            ("method", pa.string()),
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(demo_rows(), schema=schema), path)


if __name__ == "__main__":
    write_catalog(lora_catalog(), catalog_entries())
    write_catalog(plain_lora_catalog(), plain_entries())
    write_demo(lora_catalog().parents[2] / "manifests" / "demo.parquet")
    example_manifest()
