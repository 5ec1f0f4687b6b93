"""Everything about each image, in chunks that a page loads when it shows one.

A chunk is read from the table when it is written, so memory holds one chunk's rows as Python values
whatever the size of the output.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.report.attention import maps_name
from pipelines.units.committed_image import image_name
from pipelines.units.schemas import ROWS

ROWS_A_CHUNK = 50
DETAIL_COLUMNS = [name for name in ROWS.names if name not in ("image", "dino_features")]

Detail = dict[str, Any]


def detail_chunks(
    keys: Sequence[str],
    rows: pa.Table,
    failures: Mapping[str, Mapping[str, Any]],
    *,
    with_maps: Collection[str] = (),
) -> Iterator[list[Detail]]:
    """Yield the details of ``keys`` in order, ``ROWS_A_CHUNK`` at a time.

    Args:
        keys: Of rows and failures, in the report's order.
        rows: ``DETAIL_COLUMNS`` of the committed rows.
        failures: Rows of ``schemas.ERRORS`` by key.
        with_maps: Keys whose attention maps lie in the output.
    """
    places = {key: place for place, key in enumerate(rows["key"].to_pylist())}
    for start in range(0, len(keys), ROWS_A_CHUNK):
        wanted = keys[start : start + ROWS_A_CHUNK]
        found = rows.take([places[key] for key in wanted if key in places]).to_pylist()
        made = {row["key"]: row for row in found}
        yield [
            _made(made[key], has_maps=key in with_maps)
            if key in made
            else _failed(failures[key], key)
            for key in wanted
        ]


def _made(row: Mapping[str, Any], *, has_maps: bool) -> Detail:
    path = image_name(row["key"])
    return {
        "image": f"../{path}",
        "maps": f"../{maps_name(row['key'])}" if has_maps else None,
        "command": f"clora render {path}",
        "groups": [
            ["Asked for", _asked(row)],
            ["Came out", _came_out(row)],
            ["Made with", _made_with(row)],
        ],
    }


def _failed(error: Mapping[str, Any], key: str) -> Detail:
    return {
        "image": None,
        "maps": None,
        "command": "clora retry job.yaml",
        "groups": [
            [
                "No image",
                _facts(
                    ("stage", error["stage"]),
                    ("error", error["error"]),
                    ("why", error["message"]),
                    ("attempts", error["attempt"]),
                ),
            ],
            [
                "Asked for",
                _facts(
                    ("prompt", error["prompt"]),
                    ("LoRAs", ", ".join(error["loras"])),
                    ("seed", error["seed"]),
                    ("method", error["method"]),
                    ("row", error["row_id"]),
                    ("key", key),
                ),
            ],
        ],
    }


def _asked(row: Mapping[str, Any]) -> list[list[str]]:
    loras = [
        (f"LoRA {lora['name']}", _lora(lora))
        for lora in row["loras"]
    ]  # fmt: skip
    carried = json.loads(row["carried_json"] or "{}")
    return _facts(
        ("prompt", row["prompt"]),
        ("negative prompt", row["negative_prompt"]),
        ("prompts read as", row["prompt_syntax"]),
        ("emphasis", _emphasis(row["emphasis"])),
        ("chunks of text", row["text_chunks"]),
        *loras,
        *(("remark", remark) for remark in row["remarks"] or ()),
        ("seed", row["seed"]),
        ("method", row["method"]),
        ("size", f"{row['width']} x {row['height']} px"),
        ("sampler", _settings(row["sampler_json"])),
        *((name, value) for name, value in carried.items() if value is not None),
        ("row", row["row_id"]),
        ("key", row["key"]),
    )


def _lora(lora: Mapping[str, Any]) -> str:
    parts = [f"weight {lora['weight']:g}", lora["kind"]]
    if lora["subject"]:
        parts.append(f"is the {lora['subject']}")
    if lora["trigger"]:
        parts.append(f"trigger {lora['trigger']}")
    if lora["region_json"]:
        parts.append(f"region {lora['region_json']}")
    return ", ".join([*parts, f"tensors {lora['digest'][:12]}"])


def _emphasis(found: Sequence[Mapping[str, Any]] | None) -> str:
    return ", ".join(f"{each['words']} {each['weight']:.3g}" for each in found or ())


def _came_out(row: Mapping[str, Any]) -> list[list[str]]:
    concepts = [lora["name"] for lora in row["loras"] if lora["kind"] == "concept"]
    scores = [
        (f"like {entry['lora']}", _number(entry["score"])) for entry in row["lora_scores"] or ()
    ]
    coverage = [
        (f"{what} of {name}", _number(value))
        for what, values in (
            ("mask", row["mask_coverage"]),
            ("leakage", row["mask_leakage"]),
        )
        for name, value in zip(concepts, values or (), strict=False)
    ]
    return _facts(
        ("DINO min, avg, max", _numbers(row, "dino_min", "dino_avg", "dino_max")),
        ("DINO apart", _number(row["dino_apart"])),
        *scores,
        *coverage,
        ("mask overlap", _number(row["mask_overlap"])),
        ("loss, first and last", _numbers(row, "loss_first", "loss_last")),
        ("latent updates", row["num_updates"]),
        ("UNet evaluations", row["unet_evaluations"]),
        ("seconds", _number(row["seconds"])),
        ("made again in float32", "yes" if row["retried_in_fp32"] else None),
    )


def _made_with(row: Mapping[str, Any]) -> list[list[str]]:
    return _facts(
        ("base model", row["base_model_digest"]),
        ("DINO model", row["dino_digest"]),
        ("versions", _settings(row["versions_json"])),
        ("device", row["device"]),
        ("place in its batch", f"{row['batch_slot']} of {row['batch_size']}"),
        ("attempt", row["attempt"]),
        ("run", row["run_id"]),
        ("unit", row["unit_id"]),
        ("made", f"{row['made_at']:%Y-%m-%d %H:%M:%S} UTC" if row["made_at"] else None),
        ("sha256 of the PNG", row["image_sha256"]),
    )


def _facts(*pairs: tuple[str, object]) -> list[list[str]]:
    return [[name, str(value)] for name, value in pairs if value is not None and value != ""]


def _settings(text: str | None) -> str | None:
    values = json.loads(text or "{}")
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in values.items()) or None


def _numbers(row: Mapping[str, Any], *names: str) -> str | None:
    values = [row[name] for name in names]
    return None if None in values else ", ".join(f"{value:.3f}" for value in values)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
