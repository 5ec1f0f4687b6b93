import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.grid.prompt_lines import (
    PromptLine,
    PromptLineError,
    parse_prompt_line,
    read_prompt_lines,
)


def test_kohya_options_become_columns_and_sampler_settings():
    line = parse_prompt_line(
        "a cat -- at dusk --n blurry, low --w 512 --h 768 --d 7 --l 7.5 --s 30"
    )
    assert line == PromptLine(
        prompt="a cat -- at dusk",
        negative_prompt="blurry, low",
        width=512,
        height=768,
        seed=7,
        sampler={"guidance_scale": 7.5, "num_steps": 30},
    )


def test_a1111_tags_become_loras_with_weights_and_leave_the_prompt_clean():
    line = parse_prompt_line("<lora:cat_v1.2:0.8>, a cat <lora:dog> and a dog, outside <lora:x:-1>")
    assert line.prompt == "a cat and a dog, outside"
    assert line.loras == (("cat_v1.2", 0.8), ("dog", None), ("x", -1.0))


@given(
    seed=st.integers(0, 2**31),
    width=st.integers(8, 64).map(lambda n: 8 * n),
    weight=st.floats(-2, 2, allow_nan=False).map(lambda x: round(x, 3)),
)
def test_what_is_written_is_read_back(seed: int, width: int, weight: float):
    line = parse_prompt_line(f"a cat <lora:cat:{weight}> --d {seed} --w {width}")
    assert (line.seed, line.width, line.loras) == (seed, width, (("cat", weight),))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a cat --q 3", "--q is not an option that a row can say; known: --n, --w"),
        ("a cat --d 1 --d 2", "--d is given twice"),
        ("a cat --w wide", "--w should be a number, got 'wide'"),
        ("a cat <lora:cat:0.8:0.5>", "one number as its weight"),
        ("<lora:cat:1> --d 4", "holds no prompt"),
    ],
)
def test_what_a_row_cannot_say_is_refused_by_name(text: str, sentence: str):
    with pytest.raises(PromptLineError, match=sentence):
        parse_prompt_line(text)


def test_a_file_gives_its_lines_with_numbers_and_every_bad_one():
    text = "\ufeff# cats\n\na cat\na dog --q 1\nan owl\n"
    lines = dict(read_prompt_lines(text))
    assert sorted(lines) == [3, 4, 5]
    assert isinstance(lines[4], PromptLineError)
    assert lines[5] == PromptLine(prompt="an owl")
