"""Pictures of strangers through the command line: a sentence and exit 2, never a traceback."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_kit import FakeModelHost
from hostile_pictures import (
    as_text,
    changed_recipes,
    damaged_files,
    other_modes,
    png,
    recipe,
    recipe_texts,
)
from input_kit import row, write_job

import jobs.commands.render
from jobs.cli import main
from jobs.pictures.picture import read_picture
from manifests.loras.file import inspect_lora_file
from manifests.weights.base_model import inspect_base_model

SLOW_S = 10.0


class Composer(FakeModelHost):
    def compose(self, rows: Any, **_options: bool) -> list[Any]:
        return super().compose(rows)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("job"), [row()])


@pytest.fixture(scope="module")
def good(job: Path) -> dict[str, Any]:
    loras = [
        {
            "name": name,
            "digest": inspect_lora_file(job.parent / f"loras/{name}.safetensors").digest,
            "kind": "concept",
            "weight": 1.0,
            "subject": name,
            "trigger": None,
            "region_json": None,
        }
        for name in ("cat", "dog")
    ]
    return recipe(loras, inspect_base_model(job.parent / "base").digest)


@pytest.fixture
def answer(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Return a function that runs a command on a picture: its exit code and what it said."""
    monkeypatch.setattr(jobs.commands.render, "_composer", lambda *_: Composer())
    path = tmp_path / "picture.png"

    def run(command: str, content: bytes | None) -> tuple[int, str]:
        if content is not None:
            path.write_bytes(content)
        more = ["--job", str(job), "--out", str(tmp_path / "again.png")]
        start = time.perf_counter()
        with pytest.raises(SystemExit) as ended:
            main([command, str(path), *(more if command == "render" else [])])
        assert time.perf_counter() - start < SLOW_S
        said = capsys.readouterr()
        everything = said.out + said.err
        assert everything.replace("\n", "").isprintable()
        return int(ended.value.code or 0), said.err

    run.base = job.parent / "base"
    return run


def test_a_good_picture_is_shown_and_made_again(answer, good):
    assert answer("show", png(as_text(good))) == (0, "")
    code, said = answer("render", png(as_text(good)))
    assert (code, said) == (1, "")  # the stub makes noise


def test_every_field_that_is_gone_or_wrong_is_a_sentence_that_names_it(answer, good):
    wrong = 0
    for number, (what, changed, holds) in enumerate(changed_recipes(good)):
        # Both check alike, so one of them is asked about most.
        both = ("show", "render")
        for command in both if holds or what.startswith("no ") else both[number % 2 :][:1]:
            code, said = answer(command, png(as_text(changed)))
            if holds:
                # Another name of a LoRA changes nothing, its digest finds it.
                assert code == {"show": 0, "render": 1}[command], (what, said)
            else:
                wrong += 1
                assert code == 2, (what, said)
                assert "picture.png" in said
                field = what.removeprefix("no ").partition(" ")[0].partition("[")[0]
                others = {"region": "region_json", "a": "", "loras": "prompt: subject"}
                assert field in said or others[field] in said, (what, said)
    assert wrong > 300


def test_all_that_is_wrong_is_said_at_once(answer, good):
    bad = {**good, "seed": -1, "width": "x", "method": "mrege", "sampler": {"num_stepz": 3}}
    bad["loras"] = [{**good["loras"][0], "weight": 99}]
    for command in ("show", "render"):
        code, said = answer(command, png(as_text(bad)))
        assert code == 2
        for part in (
            "seed: ", "width: ", "did you mean 'merge'?", "did you mean 'num_steps'?",
            "loras[0].weight: ",
        ):  # fmt: skip
            assert part in said


def test_a_size_is_one_of_a_row_or_the_base_model_s_own(answer, good, monkeypatch):
    for side_px, part in ((60, "greater than or equal to 64"), (132, "multiple of 8")):
        content = png(
            as_text({**good, "width": side_px, "height": side_px}),
            pixels=np.zeros((side_px, side_px, 3), np.uint8),
        )
        code, said = answer("render", content)
        assert (code, said.count(part)) == (2, 2)
        with monkeypatch.context() as patch:
            base = inspect_base_model(answer.base)
            own = replace(base, default_size_px=side_px)
            patch.setattr("jobs.pictures.recipe_files.model_facts", lambda _named, own=own: own)
            assert answer("render", content) == (1, "")


def test_what_is_no_recipe_of_ours_is_a_sentence(answer, good):
    for what, text in recipe_texts(as_text(good)):
        for command in ("show", "render"):
            code, said = answer(command, png(text))
            assert (code, "picture.png" in said) == (2, True), (what, said)


def test_what_is_no_picture_of_ours_is_a_sentence(answer, good):
    for what, content in damaged_files(as_text(good)):
        for command in ("show", "render"):
            code, said = answer(command, content)
            assert (code, "picture.png" in said) == (2, True), (what, said)
            assert len(said) < 1000


def test_other_kinds_of_pixels_are_read_as_colours(answer, good, tmp_path: Path):
    for what, content in other_modes(as_text(good)):
        code, said = answer("show", content)
        assert (code, said) == (0, ""), what
        assert read_picture(tmp_path / "picture.png").pixels.shape[2] == 3


def test_a_pipe_or_a_folder_for_a_picture_is_a_sentence(answer, tmp_path: Path):
    os.mkfifo(tmp_path / "picture.png")
    for command in ("show", "render"):
        code, said = answer(command, None)
        assert (code, "is a pipe and not a regular file" in said) == (2, True)
    (tmp_path / "picture.png").unlink()
    (tmp_path / "picture.png").mkdir()
    assert answer("show", None)[0] == answer("render", None)[0] == 2


def test_a_pipe_for_a_mask_is_a_sentence(answer, good, tmp_path: Path):
    os.mkfifo(tmp_path / "mask.png")
    mask = as_text({"mask": {"uri": str(tmp_path / "mask.png"), "sha256": "0"}, "mode": "replace"})
    loras = [{**good["loras"][0], "region_json": mask}, good["loras"][1]]
    masked = {**good, "method": "clora", "loras": loras}
    code, said = answer("render", png(as_text(masked)))
    assert code == 2
    assert "mask.png is a pipe" in said
