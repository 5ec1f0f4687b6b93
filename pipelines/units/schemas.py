"""Every table of the engine, with fixed types: what is planned, what travels, what is written.

Types never depend on the data, so all units of all runs read as one table; that is why a manifest's
own columns are carried as one JSON column. The image column carries Hugging Face's schema metadata,
without which ``datasets.load_dataset`` would give bytes where people expect pictures.
"""

import json

import pyarrow as pa

from manifests.rows.table import LORA, ROW

PLANNED_ROW = pa.schema([*ROW, ("attempt", pa.int32())])
"""One row to make; ``attempt`` is 1 for a row that was never tried."""

PLAN = pa.schema(
    [
        ("unit_id", pa.string()),
        ("num_rows", pa.int32()),
        ("method", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("lora_set", pa.string()),
        ("attempt", pa.int32()),
        ("rows", pa.list_(pa.struct(list(PLANNED_ROW)))),
    ]
)
"""One unit a row. ``lora_set`` names the LoRAs of its first row; it is for people to look at."""

FAILURE = pa.struct([("stage", pa.string()), ("error", pa.string()), ("message", pa.string())])

_DIAGNOSTICS = [
    ("mask_coverage", pa.list_(pa.float32())),
    ("mask_overlap", pa.float32()),
    ("mask_leakage", pa.list_(pa.float32())),
    ("loss_first", pa.float32()),
    ("loss_last", pa.float32()),
    ("num_updates", pa.int32()),
    ("unet_evaluations", pa.int32()),
    ("seconds", pa.float32()),
    ("batch_size", pa.int32()),
    ("batch_slot", pa.int32()),
    ("retried_in_fp32", pa.bool_()),
]

RESULT = pa.schema([("pixels", pa.binary()), ("failure", FAILURE), *_DIAGNOSTICS])
"""What becomes of a row: raw RGB bytes (height x width x 3), or why there are none."""

GENERATED = pa.schema([*PLANNED_ROW, *RESULT])
"""A row after the generate stage."""

_SCORES = [
    ("dino_min", pa.float32()),
    ("dino_avg", pa.float32()),
    ("dino_max", pa.float32()),
    ("dino_apart", pa.float32()),
    ("lora_scores", pa.list_(pa.struct([("lora", pa.string()), ("score", pa.float32())]))),
    ("dino_features", pa.list_(pa.float32())),
]

SCORED = pa.schema([*GENERATED, *[pa.field(name, type_) for name, type_ in _SCORES]])
"""A row after the score stage."""

_LORA_FIELDS = "name", "weight", "kind", "subject", "trigger", "region_json", "digest", "uri"

ROWS = pa.schema(
    [
        ("key", pa.string()),
        ("row_id", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("prompt", pa.string()),
        ("negative_prompt", pa.string()),
        (
            "loras",
            pa.list_(pa.struct([LORA.field(name) for name in _LORA_FIELDS])),
        ),
        ("seed", pa.int64()),
        ("method", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        *_SCORES,
        *_DIAGNOSTICS,
        ("peak_memory_bytes", pa.int64()),
        ("image_sha256", pa.string()),
        ("prompt_syntax", pa.string()),
        ("text_chunks", pa.int32()),
        (
            "emphasis",
            pa.list_(
                pa.struct(
                    [("column", pa.string()), ("words", pa.string()), ("weight", pa.float64())]
                )
            ),
        ),
        ("sampler_json", pa.string()),
        ("carried_json", pa.string()),
        ("remarks", pa.list_(pa.string())),
        ("base_model_digest", pa.string()),
        ("dino_digest", pa.string()),
        ("versions_json", pa.string()),
        ("device", pa.string()),
        ("attempt", pa.int32()),
        ("unit_id", pa.string()),
        ("run_id", pa.string()),
        ("made_at", pa.timestamp("ms", tz="UTC")),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
)
"""One image. ``image.bytes`` is the PNG, ``image.path`` its place below the output folder.

``prompt_syntax``, ``text_chunks`` and ``emphasis`` say how its prompts were read.
"""

ADDED_COLUMNS = frozenset({"dino_apart", "prompt_syntax", "text_chunks", "emphasis", "remarks"})
"""Of ``ROWS``: those that files of earlier releases do not have, and that are empty there."""

ERRORS = pa.schema(
    [
        ("key", pa.string()),
        ("row_id", pa.string()),
        ("prompt", pa.string()),
        ("loras", pa.list_(pa.string())),
        ("seed", pa.int64()),
        ("method", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("attempt", pa.int32()),
        ("unit_id", pa.string()),
        ("run_id", pa.string()),
        ("failed_at", pa.timestamp("ms", tz="UTC")),
    ]
)
"""One try that gave no image. A key that is also in the rows was made by a later try."""

RECEIPTS = pa.schema(
    [
        ("unit_id", pa.string()),
        ("committed", pa.bool_()),
        (
            "rows",
            pa.list_(
                pa.struct(
                    [
                        ("method", pa.string()),
                        ("made", pa.bool_()),
                        ("stage", pa.string()),
                        ("seconds", pa.float32()),
                        ("unet_evaluations", pa.int32()),
                        ("dino_min", pa.float32()),
                    ]
                )
            ),
        ),
        ("facts_json", pa.string()),
        ("failure", FAILURE),
    ]
)
"""What reaches the driver of a unit: no keys, no pixels, nothing that grows with image size."""
