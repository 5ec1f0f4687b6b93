"""A LoRA's region travels from the manifest's row to the composer, and not into references."""

from dataclasses import replace

from clora_core.recipe.config import SamplerConfig
from clora_core.recipe.row import Lora, Region, Row
from manifests.rows.table import row_table, rows_of
from pipelines.planning.plan_uses import concepts_of
from pipelines.planning.references import ReferenceSettings, reference_rows

BOX = Region(box=(0.0, 0.0, 0.5, 1.0), mode="replace")
MASK = Region(mask_uri="s3://b/m.png", mask_sha256="d")


def planned(*regions: Region | None) -> Row:
    loras = tuple(
        Lora(
            name=f"lora {index}",
            uri=f"/{index}.safetensors",
            digest=str(index),
            kind="concept",
            weight=0.5,
            subject="cat",
            trigger=None,
            region=region,
        )
        for index, region in enumerate(regions)
    )
    return Row(
        key="key",
        base_model_digest="b",
        row_id="row",
        prompt="a cat",
        negative_prompt="",
        loras=loras,
        seed=1,
        method="clora",
        width=64,
        height=64,
        sampler=SamplerConfig(),
        carried_json="{}",
    )


def here(uri: str) -> str:
    return f"/here/{uri.rpartition('/')[2]}"


def test_regions_arrive_at_the_composer_with_masks_on_this_machine():
    table = row_table([planned(BOX, MASK, None)])
    assert [lora["region_json"] for lora in table["loras"][0].as_py()] == [
        '{"box":[0,0,0.5,1],"mode":"replace"}',
        '{"mask":{"sha256":"d","uri":"s3://b/m.png"},"mode":"restrict"}',
        None,
    ]
    (row,) = rows_of(table)
    composed = row.with_local_files(local_lora=here, local_mask=here)
    assert [lora.region for lora in composed.loras] == [
        BOX,
        replace(MASK, mask_uri="/here/m.png"),
        None,
    ]
    assert composed.loras[0].uri == "/here/0.safetensors"


def test_references_have_the_whole_image_and_one_precision():
    settings = ReferenceSettings(num_references=2, sampler=SamplerConfig(), side_px=64)
    rows = [planned(BOX), planned(None)]
    found = list(reference_rows(concepts_of(rows), {"b": settings}))
    assert [row.loras[0].region for row in found] == [None, None]
    assert [row.key for row in reference_rows(concepts_of(rows[1:]), {"b": settings})] == [
        row.key for row in found
    ]
    halves = reference_rows(concepts_of(rows), {"b": replace(settings, dtype="float16")})
    assert {row.key for row in halves}.isdisjoint(row.key for row in found)
