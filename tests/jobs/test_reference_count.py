"""How many references a job gets that names no number."""

import pytest
from engine_kit import BASE_MODEL, SAMPLER, SIDE_PX, lora, row, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.job.reference_count import count_references
from pipelines.planning.plan_uses import concepts_of
from pipelines.planning.references import ReferenceSettings, reference_rows


def test_a_number_that_is_named_is_kept():
    assert count_references(rows(3), 7) == (7, 2)
    assert count_references(rows(3), 50) == (50, 2)


@pytest.mark.parametrize(
    ("num_rows", "expected"), [(1, 5), (6, 5), (19, 5), (20, 10), (99, 45), (100, 50), (5000, 50)]
)
def test_more_rows_get_more_references(num_rows: int, expected: int):
    assert count_references(rows(num_rows), None) == (expected, 2)


@settings(max_examples=40)
@given(num_rows=st.integers(1, 300), names=st.lists(st.sampled_from("abcdefgh"), min_size=1))
def test_there_are_no_more_references_than_rows_unless_5_are_more(num_rows: int, names: list[str]):
    sets = [(lora(name),) for name in names]
    manifest = [row(index, loras=sets[index % len(sets)]) for index in range(num_rows)]
    number, num_loras = count_references(manifest, None)
    asked = ReferenceSettings(num_references=number, sampler=SAMPLER, side_px=SIDE_PX)
    made = list(reference_rows(concepts_of(manifest), {BASE_MODEL: asked}))
    assert len(made) == number * num_loras
    assert 5 <= number <= 50
    assert len(made) <= num_rows or number == 5
    assert len(made) + 5 * num_loras > num_rows or number == 50


def test_styles_have_no_references():
    ink = lora("ink", kind="style", subject=None)
    assert count_references([row(0, loras=(ink,))], None) == (5, 0)


def test_a_file_that_is_repaired_changes_no_number():
    broken = [
        row(index, loras=(lora("cat"), lora("fox", problem="is empty"))) for index in range(30)
    ]
    whole = [row(index, loras=(lora("cat"), lora("fox"))) for index in range(30)]
    assert count_references(broken, None) == count_references(whole, None)
