"""What the judge says is held against what was written down by eye."""

import csv
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from emoji_world.measures.eyes import (
    LABELS,
    PICTURES,
    QUESTIONS,
    agreements,
    digest,
    kappa,
    read_pictures,
)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_kappa_is_agreement_beyond_what_chance_agrees_on(pairs: list[tuple[bool, bool]]):
    one, two = [a for a, _ in pairs], [b for _, b in pairs]
    equal = sum(a == b for a, b in pairs) / len(pairs)
    first, second = Counter(one), Counter(two)
    chance = sum(first[answer] * second[answer] for answer in (True, False)) / len(pairs) ** 2
    if chance == 1:
        assert math.isnan(kappa(one, two))
    else:
        assert kappa(one, two) == pytest.approx((equal - chance) / (1 - chance))


def test_a_hundred_pictures_were_looked_at_twice_and_every_instance_has_its_answers():
    with LABELS.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert len({row["number"] for row in rows}) == 100
    assert len(rows) == 84 * 2 + 16 * 3
    for row in rows:
        answers = [row[f"{question}_{turn}"] for turn in (1, 2) for question in QUESTIONS]
        assert set(answers) <= {"0", "1"}
        assert row["recognisable_1"] >= row["identity_1"]  # itself is recognisable, too
        assert row["recognisable_2"] >= row["identity_2"]


def test_the_judge_agrees_with_eyes_on_what_is_recognisable_and_on_doubles():
    found = {(each.question, each.between): each for each in agreements()}
    assert found["recognisable", "judge, first look"].kappa >= 0.8
    assert found["doubled", "judge, first look"].kappa >= 0.8
    assert found["recognisable", "first look, second look"].num_answers == 216


def test_a_picture_that_is_not_the_one_that_was_looked_at_is_named(tmp_path):
    mosaic = np.asarray(Image.open(PICTURES).convert("RGB")).copy()
    mosaic[70, 5] = 255 - mosaic[70, 5]  # in the second row: number 10
    other = tmp_path / "eyes.webp"
    Image.fromarray(mosaic).save(other, lossless=True)
    with pytest.raises(ValueError, match=r"picture 10 is not the one"):
        agreements(pictures=other)


def test_pictures_are_cut_out_of_the_mosaic_as_they_were_pasted(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 255, (12, 64, 96, 3), dtype=np.uint8)
    mosaic = Image.new("RGB", (960, 128))
    for number, picture in enumerate(drawn):
        mosaic.paste(Image.fromarray(picture), (number % 10 * 96, number // 10 * 64))
    mosaic.save(tmp_path / "some.webp", lossless=True)
    widths = [96, 64] * 6
    read = read_pictures(widths, tmp_path / "some.webp")
    for number, (picture, width) in enumerate(zip(read, widths, strict=True)):
        assert digest(picture) == digest(np.ascontiguousarray(drawn[number][:, :width]))
