"""Seeds and sizes as cells hold them: each is the number it says, or refused with the reason."""

import decimal

import pyarrow as pa
import pytest
from input_kit import row

from jobs.job.catalog_spec import CatalogSettings
from manifests.grid.prompt_lines import PromptLineError, parse_prompt_line
from manifests.grid.spec import SweepSpec
from manifests.rows.schema import ManifestRow
from manifests.rows.table import ROW
from manifests.text.whole_numbers import MAX_SEED, seed_number
from pipelines.units.schemas import ROWS


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (0, 0), (2**63 - 1, 2**63 - 1), ("42", 42), (" +42 ", 42), ("0042", 42), ("1.0", 1),
        ("1.", 1), ("256,0", 256), ("256,00", 256), ("٣", 3), ("9223372036854775807", 2**63 - 1),
        (7.0, 7), (-0.0, 0), (float(2**53 - 1), 2**53 - 1), (decimal.Decimal("7.00"), 7),
        (decimal.Decimal(2**63 - 1), 2**63 - 1),
    ],
)  # fmt: skip
def test_a_seed_is_the_whole_number_that_its_cell_says(cell, number):
    found = seed_number(cell)
    assert found == number
    assert type(found) is int


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        (-1, "no seed is random; write a number, or let clora sweep"),
        ("-1", "no seed is random"),
        (-1.0, "no seed is random"),
        (2**63, "at most 9223372036854775807 (2**63 - 1): outputs store seeds as signed 64-bit"),
        (2**64 - 1, "at most"),
        ("18446744073709551615", "at most"),
        ("9" * 60, "at most"),
        (float(2**53), "floating-point number from 2**53 on"),
        ("9007199254740992.0", "floating-point number from 2**53 on"),
        ("1e3", "all of its digits"),
        ("1.23457E+18", "may have rounded this one"),
        ("1,23457E+18", "all of its digits"),
        (True, "whole number"),
        (7.5, "whole number"),
        (float("inf"), "whole number"),
        (decimal.Decimal("7.5"), "whole number"),
        (decimal.Decimal("Infinity"), "whole number"),
        ("7.5", "whole number"),
        ("7,000", "whole number, in digits alone"),
        ("1_000", "in digits alone"),
        ("0x10", "in digits alone"),
        ("True", "in digits alone"),
        ("", "in digits alone"),
        (b"7", "whole number"),
        ([7], "whole number"),
    ],
)
def test_a_seed_that_is_no_number_or_may_be_rounded_is_refused(cell, sentence):
    with pytest.raises(ValueError, match=r"^should") as refused:
        seed_number(cell)
    assert sentence in str(refused.value)
    with pytest.raises(ValueError, match=r"should"):
        ManifestRow.model_validate(row(seed=cell))


def test_the_largest_seed_is_the_largest_that_outputs_store():
    assert ROW.field("seed").type == ROWS.field("seed").type == pa.int64()
    assert pa.scalar(MAX_SEED, pa.int64()).as_py() == MAX_SEED
    with pytest.raises(OverflowError):
        pa.scalar(MAX_SEED + 1, pa.int64())


@pytest.mark.parametrize(
    ("seeds", "sentence"),
    [
        ([-1], "no seed is random"),
        ([2**63], "at most"),
        ({"first": -1, "count": 3}, "no seed is random"),
        ({"first": 2**63 - 2, "count": 1_000_000}, "at most"),
    ],
)
def test_seeds_of_a_sweep_follow_the_same_rule(seeds, sentence):
    with pytest.raises(ValueError, match=r"1 validation error") as refused:
        SweepSpec(output="out", seeds=seeds)
    assert sentence in str(refused.value)
    assert SweepSpec(output="out", seeds={"first": "7", "count": 2}).seeds == (7, 8)  # type: ignore[arg-type]


def test_seeds_of_a_catalog_follow_the_same_rule():
    with pytest.raises(ValueError, match="no seed is random"):
        CatalogSettings(seeds=[-1])
    with pytest.raises(ValueError, match="at most 9223372036854775807"):
        CatalogSettings(seeds=[2**63])


def test_the_seed_of_a_prompt_line_follows_the_same_rule():
    assert parse_prompt_line("a cat --d 42").seed == 42
    with pytest.raises(PromptLineError, match="--d should be 0 or more"):
        parse_prompt_line("a cat --d -1")
