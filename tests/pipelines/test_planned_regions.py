"""A LoRA's region travels from the manifest's row to the composer, and not into references."""

from dataclasses import replace

from clora_core.rows import Region
from manifests.resolved import ResolvedLora, ResolvedRow
from pipelines.planned_rows import compose_row, row_table
from pipelines.references import ReferenceSettings, reference_rows

BOX = '{"box":[0,0,0.5,1],"mode":"replace"}'
MASK = '{"mask":{"sha256":"d","uri":"s3://b/m.png"},"mode":"restrict"}'


def planned(*regions: str | None) -> ResolvedRow:
    loras = tuple(
        ResolvedLora(
            name=f"lora {index}",
            uri=f"/{index}.safetensors",
            digest=str(index),
            kind="concept",
            weight=0.5,
            subject="cat",
            trigger=None,
            region_json=region,
        )
        for index, region in enumerate(regions)
    )
    return ResolvedRow(
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
        sampler_json="{}",
        carried_json="{}",
    )


def test_regions_arrive_at_the_composer_with_masks_on_this_machine():
    (row,) = row_table([planned(BOX, MASK, None)]).to_pylist()
    composed = compose_row(row, local_path=lambda uri: f"/here/{uri.rpartition('/')[2]}")
    assert [lora.region for lora in composed.loras] == [
        Region(box=(0.0, 0.0, 0.5, 1.0), mode="replace"),
        Region(mask_path="/here/m.png", mode="restrict"),
        None,
    ]


def test_references_have_the_whole_image_and_one_precision():
    settings = ReferenceSettings(num_references=2, sampler_json="{}", side_px=64)
    rows = [planned(BOX), planned(None)]
    found = list(reference_rows(rows, {"b": settings}))
    assert [row.loras[0].region_json for row in found] == [None, None]
    assert [row.key for row in reference_rows(rows[1:], {"b": settings})] == [
        row.key for row in found
    ]
    halves = reference_rows(rows, {"b": replace(settings, dtype="float16")})
    assert {row.key for row in halves}.isdisjoint(row.key for row in found)
