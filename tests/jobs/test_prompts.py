"""How the prompts of a manifest are read, at every door, on the embedded base model."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from input_kit import write_base_model, write_jsonl

from clora_core.diffusion.model import load_base_model
from clora_core.recipe.errors import CompositionError
from clora_core.recipe.row import Row
from clora_core.sampling.row_lanes import row_lanes
from emoji_world import base_model_dir
from jobs.commands.sweep import sweep
from jobs.commands.validate import validate
from jobs.job.catalog_spec import load_catalog, prepare_catalog
from jobs.job.inputs import prepare
from jobs.job.job_file import load_job
from jobs.job.text_reader import text_reader
from manifests.rows.text_reader import text_chunks
from manifests.text.problems import InputError

LONG = (
    "a cat and a dog on a very very sunny beach with palm trees and umbrellas and boats and birds "
    "and waves"
)


def row(prompt="a cat and a dog", **changes):
    loras = ["violet-cat", "husky-dog"]
    return {"prompt": prompt, "loras": loras, "seed": 3, "method": "merge", **changes}


def write_job(folder: Path, *rows, **sampler) -> Path:
    write_jsonl(folder / "rows.jsonl", rows)
    path = folder / "job.yaml"
    settings = {"preset": "emoji", **sampler}
    path.write_text(
        f"manifest: rows.jsonl\noutput: out\nsampler: {settings}\nscoring: {{references: 0}}\n"
    )
    return path


def rows_of(folder: Path, *rows, **sampler) -> list[Row]:
    return list(prepare(load_job(write_job(folder, *rows, **sampler))).rows)


def problems_of(folder: Path, *rows, **sampler) -> list[str]:
    with pytest.raises(InputError) as refusal:
        rows_of(folder, *rows, **sampler)
    return [str(problem) for problem in refusal.value.problems]


def test_rows_whose_tails_differ_beyond_the_window_are_two_pictures(tmp_path):
    first, second = rows_of(tmp_path, row(f"{LONG} at night"), row(f"{LONG} red watercolor"))
    assert first.key != second.key
    assert first.text_chunks == second.text_chunks == 4


def test_validate_says_how_many_rows_are_read_in_chunks(tmp_path, capsys):
    assert validate(write_job(tmp_path, row(LONG), row())) == 0
    assert "1 row(s) have more than the text encoder reads at once" in capsys.readouterr().out


def test_a_long_prompt_or_negative_prompt_is_a_problem_where_the_job_refuses_them(tmp_path):
    long, negative = problems_of(
        tmp_path, row(LONG), row(negative_prompt=LONG), row(), long_prompts="refuse"
    )
    assert "prompt: the prompt has 60 tokens, 3 chunks, and" in long
    assert "reads 22 tokens at once" in long
    assert "umbrellas" not in long  # its beginning says which it is
    assert "negative_prompt: the negative prompt has " in negative


def test_a_long_row_has_another_key_than_the_cut_one_of_before(tmp_path):
    """Of 75 characters or fewer nothing changed; this one used to be read to its 22nd token."""
    [short] = rows_of(tmp_path, row())
    [long] = rows_of(tmp_path, row(LONG))
    assert short.text_chunks == 1
    assert short.key == KEY_OF_BEFORE
    assert long.key != KEY_OF_THE_CUT_ONE


KEY_OF_BEFORE = "5f72a1215e57f868943eb3344ba56c3c9b44d6cc49cb0065e5e55d8cda28e860"
KEY_OF_THE_CUT_ONE = "64a9112955f8efd9d0e1da383e53e33e42b426002956554a561b314fc5fc4853"


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("(a cat:1.3) and a dog", "'(a cat:1.3)'"),
        ("a cat and a dog <lora:violet-cat:0.8>", "'<lora:violet-cat:0.8>'"),
        ("a cat and a dog BREAK on a beach", "'BREAK'"),
        ("a {red|blue} cat and a dog", "'{red|blue}'"),
        ("a cat and a __dog__ dog", "'__dog__'"),
        (r"a cat \(black\) and a dog", r"'\\('"),
    ],
)
def test_syntax_of_other_tools_is_a_problem_at_every_door(tmp_path, prompt, named):
    [manifest] = problems_of(tmp_path, row(prompt))
    assert "line 1" in manifest
    assert f"prompt: holds {named}" in manifest
    [negative] = problems_of(tmp_path, row(negative_prompt=prompt))
    assert f"negative_prompt: holds {named}" in negative
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(
        "output: out\nsampler: {preset: emoji}\nscoring: {references: 0}\n"
        "items: [{item: one, loras: [violet-cat, husky-dog]}]\n"
        f"scenes: [{{scene: beach, prompt: '{prompt}'}}]\n"
    )
    with pytest.raises(InputError, match=r"holds|no column|placeholder|brace"):
        prepare_catalog(load_catalog(catalog), place=str(catalog))


def test_the_lines_of_a_prompt_file_follow_the_same_rule(tmp_path):
    (tmp_path / "lines.txt").write_text("(a cat:1.3) and a dog\na cat and a dog <hypernet:x:1>\n")
    spec = tmp_path / "sweep.yaml"
    text = (
        "output: out\nmethods: [merge]\nseeds: [1]\nbase_model: emoji-world\n"
        "compositions: [{loras: [violet-cat, husky-dog], prompt_file: lines.txt}]\n"
    )
    spec.write_text(text)
    with pytest.raises(InputError) as refusal:
        sweep.__wrapped__(spec)
    assert [
        p.problem.partition("holds ")[2].partition(",")[0].partition(";")[0]
        for p in refusal.value.problems
    ] == [
        "'(a cat:1.3)'",
        "'<hypernet:x:1>'",
    ]
    (tmp_path / "lines.txt").write_text("(a cat:1.3) and a dog <lora:violet-cat:0.5>\n")
    spec.write_text(f"{text}sampler: {{prompt_syntax: weighted}}\n")
    assert sweep(spec) == 0
    [made] = pq.ParquetFile(tmp_path / "out/manifest.parquet").read().to_pylist()
    assert made["prompt"] == "(a cat:1.3) and a dog"
    assert "violet-cat:0.5" in made["loras"]


def test_weighted_words_are_another_picture_and_a_plain_prompt_is_the_same(tmp_path):
    (plain,) = rows_of(tmp_path, row())
    same, other, chunked = rows_of(
        tmp_path,
        row(),
        row("a (cat:1.3) and a dog"),
        row("a cat BREAK and a dog"),
        prompt_syntax="weighted",
    )
    assert same.key == plain.key
    assert len({plain.key, other.key, chunked.key}) == 3
    assert (other.text_chunks, chunked.text_chunks) == (1, 2)


def test_a_trigger_is_read_like_the_prompt(tmp_path):
    loras = [{"lora": "violet-cat", "trigger": r"vio \(series\)"}, "husky-dog"]
    [problem] = problems_of(tmp_path, row(loras=loras))
    assert r"the trigger of LoRA 'violet-cat' holds '\\('" in problem
    [read] = rows_of(tmp_path, row(loras=loras), prompt_syntax="weighted")
    assert read.concepts[0].trigger == r"vio \(series\)"


def test_line_breaks_and_tabs_are_spaces(tmp_path):
    one, other = rows_of(tmp_path, row("a cat\nand\ta dog"), row("a cat and a dog"))
    assert one.prompt == "a cat and a dog"
    assert one.key == other.key


def test_a_clip_skip_that_the_text_encoder_does_not_have_is_a_problem(tmp_path):
    [problem] = problems_of(tmp_path, row(), row(sampler={"clip_skip": 2}), clip_skip=3)
    assert "sampler.clip_skip: should be at most 2, the layers of the base model's text" in problem


def test_more_than_32_chunks_are_a_problem(tmp_path):
    prompt = "a cat and a dog " + "BREAK a " * 33
    [problem] = problems_of(tmp_path, row(prompt), prompt_syntax="weighted")
    assert "34 chunks, more than 32; shorten it" in problem


def test_a_model_without_text_encoder_files_has_no_reader(tmp_path):
    assert text_reader(str(write_base_model(tmp_path))) is None
    assert text_reader("") is None


@pytest.fixture(scope="module")
def base():
    return load_base_model(base_model_dir())


PIECES = ("umbrella", "red", "in the snow,", "(sunny:1.2)", "BREAK", "palm trees")


@pytest.fixture(scope="module")
def weighted(tmp_path_factory):
    [found] = rows_of(tmp_path_factory.mktemp("job"), row(), prompt_syntax="weighted")
    return found


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_check_counts_as_the_sampler_reads(base, weighted, data):
    some = st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join)
    written = replace(
        weighted,
        prompt=f"{data.draw(some)} a cat {data.draw(some)} and a dog {data.draw(some)}",
        negative_prompt=data.draw(some),
        method=data.draw(st.sampled_from(["base", "merge", "clora", "clora-gated"])),
        text_chunks=None,
    )
    chunks, findings = text_chunks(written, text_reader(str(base_model_dir())))
    assert findings == []
    assert row_lanes(base, written).num_chunks == chunks
    assert row_lanes(base, replace(written, text_chunks=chunks)).num_chunks == chunks


def test_a_count_of_another_tokenizer_is_noticed(base, tmp_path):
    [checked] = rows_of(tmp_path, row(LONG))
    assert text_chunks(checked, text_reader(str(base_model_dir()))) == (checked.text_chunks, [])
    with pytest.raises(CompositionError, match="counted as 1 chunk"):
        row_lanes(base, replace(checked, text_chunks=1))
