"""``clora validate``: all problems and exit 2, or a summary and exit 0; no torch, no Ray."""

import shutil
import subprocess
import sys
from pathlib import Path

from e2e.kit import concepts
from input_kit import row, write_base_model, write_job, write_scorer
from safetensors.numpy import load_file, save_file

from emoji_world import lora_catalog
from jobs.commands.validate import validate


def test_a_good_job_is_summed_up(tmp_path, capsys):
    rows = [row(), row(), row(seed=8, method="merge"), row(prompt="a cat", loras=["cat"])]
    assert validate(write_job(tmp_path, rows)) == 0
    out = capsys.readouterr().out
    assert "4 row(s), 3 image(s) (1 are there twice); no problems" in out
    assert "clora (3), merge (1)" in out
    assert "cat + dog (3), cat (1)" in out
    assert "128x128 (4)" in out
    assert "not checked whether every layer has its place: " in out
    assert "model_index.json names no unet" in out


def test_what_scores_take_is_said_before_it_takes_it(tmp_path, capsys):
    write_scorer(tmp_path / "dino")
    rows = [row(seed=seed) for seed in range(21)]
    job = write_job(tmp_path, rows, scoring={"model": "dino"})
    assert validate(job) == 0
    said = "against 10 reference image(s) of each of 2 LoRA(s), made once and kept"
    assert said in capsys.readouterr().out


def test_several_base_models_are_summed_up_by_their_rows(tmp_path, capsys):
    write_base_model(tmp_path / "other", sample_size=32)
    rows = [row(), row(base_model="big"), row(seed=8, base_model="big")]
    assert validate(write_job(tmp_path, rows, base_models={"big": "other"})) == 0
    out = capsys.readouterr().out
    assert f"models:    big = {tmp_path / 'other'} (2), {tmp_path / 'base'} (1)" in out
    assert "256x256 (2), 128x128 (1)" in out


def test_a_lora_that_does_not_suit_its_rows_base_model_is_a_problem_here(tmp_path, capsys):
    write_base_model(tmp_path / "wide", width=768)
    rows = [row(), row(base_model="wide")]
    assert validate(write_job(tmp_path, rows, base_models={"wide": "wide"})) == 2
    err = capsys.readouterr().err
    assert "its row's base model is SD1.x (cross-attention width 768)" in err
    assert "1 of 2 row(s) name such a file" in err


def test_five_mistakes_in_five_rows_are_listed_and_nothing_is_written(tmp_path, capsys):
    rows = [
        row(row_id="a", seed=-1),
        row(row_id="b", width=510),
        "not json",
        row(row_id="d", loras=["cta"]),
        row(row_id="e", prompt="a cat"),
        row(row_id="fine"),
    ]
    before = sorted(tmp_path.rglob("*"))
    job = write_job(tmp_path / "job", rows)
    assert validate(job) == 2
    assert not (tmp_path / "job/out").exists()
    assert before == []
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{tmp_path / 'job/rows.jsonl'}: 5 problem(s); no image was made"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "  line 1, row 'a', seed",
        "  line 2, row 'b', width",
        "  line 3, row without an id, (row)",
        "  line 4, row 'd', loras",
        "  line 5, row 'e', prompt",
    ]


def test_a_broken_lora_file_is_a_problem_here(tmp_path, capsys):
    job = write_job(tmp_path, [row(), row(prompt="a dog", loras=["dog"])])
    file = tmp_path / "loras/cat.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert validate(job) == 2
    err = capsys.readouterr().err
    assert f"{file} is truncated" in err
    assert "1 of 2 row(s) name such a file" in err
    assert "not checked whether every layer has its place: " in err


def test_a_lora_that_matches_the_base_model_in_part_is_a_problem_here(tmp_path, capsys):
    catalog = tmp_path / "loras"
    shutil.copytree(lora_catalog().parent, catalog)
    one, other = concepts()
    file = catalog / one["uri"]
    whole = load_file(file)
    strange = {name.replace("up_blocks", "sideways"): tensor for name, tensor in whole.items()}
    save_file(strange, file)
    rows = [
        {"prompt": f"a {lora['subject']}", "loras": [lora["name"]], "seed": 1, "method": "single"}
        for lora in (one, other)
    ]
    job = write_job(tmp_path, rows, base_model="emoji-world", loras="loras/loras.yaml")
    shutil.copytree(lora_catalog().parent, catalog, dirs_exist_ok=True)
    assert validate(job) == 0
    assert "every layer has its place in its model" in capsys.readouterr().out
    save_file(strange, file)
    assert validate(job) == 2
    err = capsys.readouterr().err
    total = len({name.partition(".lora")[0] for name in whole if ".lora" in name})
    gone = len({name.partition(".lora")[0] for name in strange if "sideways" in name})
    assert 0 < gone < total
    assert f"{file} matches this base model in {total - gone} of {total} layers" in err
    assert "sideways.0." in err
    assert "1 of 2 row(s) name such a file" in err
    assert "not checked" not in err


def test_a_missing_job_file_exits_2(tmp_path, capsys):
    assert validate(tmp_path / "none.yaml") == 2
    assert "does not exist" in capsys.readouterr().err


def test_validation_imports_neither_torch_nor_ray(tmp_path):
    job = write_job(tmp_path, [row()])
    code = (
        "import sys\n"
        "from jobs.commands.validate import validate\n"
        f"code = validate({str(job)!r})\n"
        "heavy = {'torch', 'ray', 'diffusers', 'transformers', 'peft'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
