import io
from typing import Any

from PIL import Image

from pipelines.outputs.contact_sheet import (
    ALONE_PX,
    LABEL_PX,
    MAX_SHEET_ROWS,
    TILE_PX,
    _fitting,
    _font,
    choose_rows,
    contact_sheet,
)


def sheet_row(**changes: Any) -> dict[str, Any]:
    return {
        "key": "k",
        "prompt": "a cat and a dog",
        "loras": [{"name": "cat"}, {"name": "dog"}],
        "seed": 0,
        "method": "clora",
        "width": 64,
        "height": 64,
        "dino_min": 0.5,
        "unet_evaluations": 60,
    } | changes


def png(colour: str, size: tuple[int, int] = (64, 64)) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", size, colour).save(sink, "PNG")
    return sink.getvalue()


def test_methods_of_one_composition_and_seed_stand_side_by_side():
    rows = [sheet_row(key="red", method="clora"), sheet_row(key="blue", method="merge")]
    content = contact_sheet(rows, lambda row: png(row["key"]), title="two")
    assert content is not None
    sheet = Image.open(io.BytesIO(content))
    middle = sheet.height - TILE_PX // 2 - 40
    assert sheet.getpixel((LABEL_PX + TILE_PX // 2, middle)) == (255, 0, 0)
    assert sheet.getpixel((LABEL_PX + TILE_PX * 3 // 2, middle)) == (0, 0, 255)


def test_what_each_lora_makes_alone_stands_between_label_and_methods():
    rows = [sheet_row(key="red")]
    content = contact_sheet(
        rows,
        lambda row: png(row["key"]),
        title="one",
        alone_of=lambda _: [png("lime"), png("blue")],
    )
    assert content is not None
    sheet = Image.open(io.BytesIO(content))
    top = sheet.height - TILE_PX - 34
    assert sheet.getpixel((LABEL_PX + 20, top + 20)) == (0, 255, 0)
    assert sheet.getpixel((LABEL_PX + 20, top + TILE_PX // 2 + 20)) == (0, 0, 255)
    assert sheet.getpixel((LABEL_PX + ALONE_PX + 20, top + 20)) == (255, 0, 0)


def test_a_long_output_shows_compositions_spread_over_all_of_it():
    rows = [sheet_row(key=str(seed), seed=seed) for seed in range(100)]
    seeds = [composition[2] for composition, _ in choose_rows(rows)]
    assert len(seeds) == MAX_SHEET_ROWS
    assert seeds == sorted(seeds)
    assert seeds[0] == 0
    assert seeds[-1] > 85


def test_compositions_that_all_methods_made_are_preferred():
    rows = [
        sheet_row(seed=1, method="clora"),
        sheet_row(seed=2, method="clora"),
        sheet_row(seed=2, method="merge"),
    ]
    assert [composition[2] for composition, _ in choose_rows(rows)] == [2]


def test_wide_images_keep_their_shape_and_long_texts_fit():
    row = sheet_row(prompt="a very long prompt " * 20, width=128, height=32, dino_min=None)
    content = contact_sheet([row], lambda _: png("red", (128, 32)), title="wide")
    assert content is not None
    assert Image.open(io.BytesIO(content)).width < 600


def test_nothing_made_is_no_sheet():
    assert contact_sheet([], png, title="none") is None


def test_a_long_name_of_a_method_stays_above_its_own_column():
    for name in ("clora", "clora-gated-no-update"):
        assert _fitting(name).getlength(name) <= TILE_PX
    assert _fitting("clora").getlength("clora") == _font(20).getlength("clora")
