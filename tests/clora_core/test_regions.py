"""Regions: where they lie on the maps, what is refused, and what they do to a row."""

import struct
import zlib
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.core_runs import Core, relative
from oracles.loops import loop_sample
from oracles.peft_pipeline import load_pipeline, loaded_loras
from oracles.tiny_rows import tiny_sampler, two_concept_row
from PIL import Image

from clora_core.recipe.errors import PromptError
from clora_core.recipe.methods import METHODS
from clora_core.recipe.row import Region
from clora_core.sampling.regions import region_mask

LEFT_HALF = Region(box=(0.0, 0.0, 0.5, 1.0))
TOP_RIGHT = Region(box=(0.5, 0.0, 1.0, 0.5), mode="replace")


def test_a_box_is_where_the_centres_of_positions_are():
    mask = region_mask(Region(box=(0.25, 0.5, 1.0, 1.0)), 4, 4)
    assert mask.int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]]


def test_a_box_counts_in_shares_of_width_and_height():
    mask = region_mask(Region(box=(0.0, 0.0, 0.5, 1.0)), 2, 6)
    assert mask.int().tolist() == [[1, 1, 1, 0, 0, 0]] * 2


def test_the_whole_image_is_a_region():
    assert region_mask(Region(box=(0.0, 0.0, 1.0, 1.0)), 3, 5).all()


@given(st.lists(st.integers(0, 8), min_size=4, max_size=4), st.integers(1, 12), st.integers(1, 12))
def test_boxes_side_by_side_share_no_position_and_leave_none_out(edges, height, width):
    left, right = sorted(edges[:2])
    top, bottom = sorted(edges[2:])
    covered = torch.zeros(height, width, dtype=torch.int)
    for x0, x1 in ((0, left), (left, right), (right, 8)):
        for y0, y1 in ((0, top), (top, bottom), (bottom, 8)):
            if x0 < x1 and y0 < y1:
                box = (x0 / 8, y0 / 8, x1 / 8, y1 / 8)
                with suppress(PromptError):  # too small for this map, covers none of it
                    covered += region_mask(Region(box=box), height, width).int()
    assert (covered == 1).all()


@pytest.mark.parametrize(
    "box",
    [
        (0.5, 0.0, 0.5, 1.0),
        (0.8, 0.0, 0.2, 1.0),
        (0.0, 0.9, 1.0, 0.1),
        (-0.1, 0.0, 0.5, 1.0),
        (0.0, 0.0, 1.1, 1.0),
        (float("nan"), 0.0, 1.0, 1.0),
    ],
)
def test_a_box_that_is_none_is_refused_with_its_values_and_the_rule(box):
    with pytest.raises(
        PromptError, match=r"region box \[.*left < right and top < bottom must hold"
    ):
        region_mask(Region(box=box), 4, 4)


def test_a_box_between_two_centres_is_refused():
    with pytest.raises(
        PromptError, match="covers none of the 4x4 attention positions; make it lar"
    ):
        region_mask(Region(box=(0.0, 0.0, 0.1, 0.1)), 4, 4)


@pytest.mark.parametrize("parts", [{}, {"box": (0.0, 0.0, 1.0, 1.0), "mask_uri": "/m.png"}])
def test_a_region_has_either_a_box_or_a_mask(parts):
    with pytest.raises(ValueError, match="either a box or a mask"):
        Region(**parts)


def test_light_places_of_a_drawn_mask_are_inside(tmp_path):
    drawn = np.zeros((80, 40), dtype=np.uint8)
    drawn[:40, 20:] = 255
    path = str(tmp_path / "mask.png")
    Image.fromarray(drawn).save(path)
    mask = region_mask(Region(mask_uri=path), 4, 2)
    assert mask.int().tolist() == [[0, 1], [0, 1], [0, 0], [0, 0]]


def test_a_coloured_mask_counts_by_its_lightness(tmp_path):
    drawn = np.zeros((4, 4, 3), dtype=np.uint8)
    drawn[:, :2] = (255, 255, 0)
    drawn[:, 2:] = (0, 0, 255)
    path = str(tmp_path / "mask.png")
    Image.fromarray(drawn).save(path)
    assert region_mask(Region(mask_uri=path), 1, 2).tolist() == [[True, False]]


def test_a_dark_mask_is_refused(tmp_path):
    path = str(tmp_path / "dark.png")
    Image.new("L", (8, 8), 20).save(path)
    with pytest.raises(PromptError, match=r"dark.png' covers none"):
        region_mask(Region(mask_uri=path), 4, 4)


@pytest.mark.parametrize("content", [None, b"no image"])
def test_a_mask_that_cannot_be_read_is_refused_by_its_path(tmp_path, content):
    path = tmp_path / "mask.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptError, match=r"mask.png cannot be read as an image"):
        region_mask(Region(mask_uri=str(path)), 4, 4)


# ------------------------------------------------------------------------------------- in a row


@pytest.fixture(scope="module")
def core(tiny_sd_dir):
    return Core(tiny_sd_dir)


@pytest.fixture(scope="module")
def pipeline(tiny_sd_dir, tiny_loras):
    pipeline = load_pipeline(tiny_sd_dir, dtype=torch.float64)
    with loaded_loras(pipeline, two_concept_row(tiny_loras).loras):
        yield pipeline


def with_regions(row, *regions):
    loras = tuple(
        replace(lora, region=region) for lora, region in zip(row.loras, regions, strict=True)
    )
    return replace(row, loras=loras)


@pytest.fixture
def row(tiny_loras):
    """One step, whose result is affine in the prediction, pixel by pixel."""
    sampler = tiny_sampler(num_steps=1, guide_until_step=0)
    return two_concept_row(tiny_loras, width=256, height=128, sampler=sampler)


def test_outside_all_regions_the_prediction_is_the_bases(core, pipeline, row):
    found, trace = core.sample(with_regions(row, LEFT_HALF, TOP_RIGHT), keep_maps=True)
    base = loop_sample(pipeline, replace(row, method="base", loras=()))
    assert relative(found[..., 8:, 16:], base[..., 8:, 16:]) < 1e-13
    assert relative(found, base) > 1e-3
    [masks] = trace.masks
    assert masks[0, 1, :, :8].any()
    assert not masks[0, 1, :, 8:].any()


def test_a_replacing_region_is_its_loras_alone(core, pipeline, row):
    found, trace = core.sample(with_regions(row, LEFT_HALF, TOP_RIGHT), keep_maps=True)
    alone = loop_sample(pipeline, replace(row, method="single", loras=row.loras[1:]))
    assert relative(found[..., :8, 16:], alone[..., :8, 16:]) < 1e-13
    assert trace.masks[0][0, 2].tolist() == region_mask(TOP_RIGHT, 8, 16).tolist()
    assert trace.coverage[0][0, 1] == 0.25


def test_a_restricting_region_only_takes_away(core, row):
    free, restricted = (
        core.sample(with_regions(row, region, None), keep_maps=True)[1].masks[0][0]
        for region in (None, LEFT_HALF)
    )
    inside = region_mask(LEFT_HALF, 8, 16)
    assert torch.equal(restricted[1], free[1] & inside)
    assert torch.equal(restricted[2], free[2])
    assert torch.equal(restricted[0], ~(restricted[1] | restricted[2]))


def test_a_region_belongs_to_its_row_alone(core, row):
    other = replace(row, seed=8)
    bounded = with_regions(row, LEFT_HALF, TOP_RIGHT)
    together, _ = core.sample([bounded, other])
    assert relative(together[:1], core.sample(bounded)[0]) < 1e-13
    assert relative(together[1:], core.sample(other)[0]) < 1e-13


@pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if not method.takes_regions]
)
def test_methods_without_masks_refuse_a_region_by_name(core, row, method):
    row = replace(with_regions(row, LEFT_HALF, None), method=method)
    if method == "single":
        row = replace(row, loras=row.loras[:1])
    if method == "k-lora":
        row = replace(row, loras=(row.loras[0], replace(row.loras[1], kind="style")))
    with pytest.raises(
        PromptError,
        match=f"method '{method}' has no masks .* one of 'base', 'merge', 'clora', 'clora-no",
    ):
        core.sample(row)


def test_the_base_method_has_nothing_to_keep_in_a_region(core, row):
    base = replace(row, method="base")
    found, _ = core.sample(with_regions(base, LEFT_HALF, None))
    assert torch.equal(found, core.sample(base)[0])


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_mask_that_would_unpack_to_gigabytes_is_refused(tmp_path):
    """A header that promises 2.5 billion pixels; Pillow refuses it before it reads them."""
    size = struct.pack(">II", 50_000, 50_000) + bytes([8, 0, 0, 0, 0])
    head = struct.pack(">I", 13) + b"IHDR" + size + struct.pack(">I", zlib.crc32(b"IHDR" + size))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + struct.pack(">I", 0) + b"IDAT" + bytes(4))
    with pytest.raises(PromptError, match=r"bomb.png cannot be read as an image .*exceeds limit"):
        region_mask(Region(mask_uri=str(path)), 8, 8)
