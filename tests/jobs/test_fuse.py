"""``clora fuse`` on the embedded world: which files it writes, and what it refuses."""

from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

import emoji_world
from clora_core.fuse.adapter_file import METADATA_KEY, provenance_of
from clora_core.recipe.fusion import fusion_of
from jobs.cli import main
from jobs.commands.plan import plan
from jobs.commands.verify import verify
from jobs.job.inputs import prepare
from jobs.job.job_file import load_job
from manifests.loras.file import inspect_lora_file
from pipelines.fusing.fused_files import fused_name

PAIR = ["violet-cat", "pink-poodle"]


def write(folder: Path, *lines: str, **settings: object) -> Path:
    """Return a job of the embedded world whose manifest has these lines."""
    manifest = folder / "rows.csv"
    manifest.write_text("\n".join(["prompt,loras,seed,method", *lines]) + "\n")
    job = {"manifest": "rows.csv", "output": "out", "scoring": {"references": 0}, **settings}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def row(method: str, seed: int = 0) -> str:
    loras = '[{""lora"": ""violet-cat""}, {""lora"": ""pink-poodle""}]'
    return f'a cat and a dog,"{loras}",{seed},{method}'


def fuse(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["fuse", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_named_loras_are_written_as_one_file_that_says_what_went_in(tmp_path, naming):
    job, out = write(tmp_path, row("merge")), tmp_path / "files"
    named = ["violet-cat", "pink-poodle:0.5", "--method", "custom-diffusion"]
    assert fuse(job, *named, "--out", out, "--naming", naming) == 0
    (path,) = out.iterdir()
    assert path.name.startswith("custom-diffusion-violet-cat+pink-poodle-")
    facts = provenance_of(path.read_bytes())
    assert [(one["name"], one["weight"]) for one in facts["loras"]] == [
        ("violet-cat", 1.0),
        ("pink-poodle", 0.5),
    ]
    assert facts["method"] == "custom-diffusion"
    assert facts["settings"]["fuse_prompts"] == ["a {}", "{}"]
    assert inspect_lora_file(path).format == naming
    with safe_open(path, "pt") as file:
        assert METADATA_KEY in file.metadata()


def test_half_precision_is_half_as_large(tmp_path):
    job = write(tmp_path, row("merge"))
    named = [*PAIR, "--method", "custom-diffusion"]
    assert fuse(job, *named, "--out", tmp_path / "a") == 0
    assert fuse(job, *named, "--out", tmp_path / "b", "--half") == 0
    (full,), (half,) = (tmp_path / "a").iterdir(), (tmp_path / "b").iterdir()
    assert half.stat().st_size < 0.55 * full.stat().st_size


def test_without_names_it_writes_what_the_rows_need_and_takes_what_is_there(tmp_path, capsys):
    job = write(tmp_path, row("custom-diffusion"), row("custom-diffusion", 1), row("merge"))
    assert fuse(job, "--out", tmp_path / "a") == 0
    assert "fused here" in capsys.readouterr().out
    (path,) = (tmp_path / "a").iterdir()
    # As a run leaves it in the output.
    key = provenance_of(path.read_bytes())["key"]
    kept = tmp_path / "out" / fused_name(key)
    kept.parent.mkdir(parents=True)
    assert fuse(job, "--out", tmp_path / "b", "--naming", "peft") == 0
    (peft,) = (tmp_path / "b").iterdir()
    kept.write_bytes(peft.read_bytes())
    assert fuse(job, "--out", tmp_path / "c") == 0
    assert "as its rows have it" in capsys.readouterr().out
    (again,) = (tmp_path / "c").iterdir()
    assert (
        provenance_of(again.read_bytes())["tensors_sha256"]
        == provenance_of(path.read_bytes())["tensors_sha256"]
    )


def test_what_cannot_be_fused_is_refused_by_name(tmp_path, capfd):
    job = write(tmp_path, row("merge"))
    three = [*PAIR, "tuxedo-cat"]
    for arguments, told in (
        ([*PAIR], "'clora' fuses nothing; name one of mix-of-show, ziplora, custom-diffusion"),
        ([*three, "--method", "ziplora"], "'ziplora' needs 2 concept LoRA(s), the row has 3"),
        (["violet-cat", "fox", "--method", "ziplora"], "no LoRA 'fox' in the catalog"),
        (["violet-cat:x", *PAIR, "--method", "ziplora"], "'violet-cat:x' is none of NAME and"),
        ([], "has no rows of a method that fuses"),
        (["--method", "ziplora"], "'ziplora' is for LoRAs that are named"),
        ([*PAIR, "pixel-art", "--method", "ziplora"], "pixel-art: styles are not fused"),
    ):
        assert fuse(job, *arguments, "--out", tmp_path / "files") == 2
        assert told in capfd.readouterr().err
    assert not (tmp_path / "files").exists()


def test_verify_counts_adapters_and_finds_damage_where_they_are_shared(tmp_path, capsys):
    job, shared = write(tmp_path, row("merge")), tmp_path / "shared" / "fused"
    assert fuse(job, *PAIR, "--method", "custom-diffusion", "--out", shared) == 0
    (path,) = shared.iterdir()
    path.rename(shared / f"{provenance_of(path.read_bytes())['key']}.safetensors")
    capsys.readouterr()
    (path,) = shared.iterdir()
    assert verify(str(tmp_path / "shared")) == 0
    assert "and 1 fused adapter(s), 0 problem(s)" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert verify(str(tmp_path / "shared")) == 1
    assert "holds other tensors than were written" in capsys.readouterr().err


def test_plan_says_which_adapters_a_run_makes_first(tmp_path, capsys):
    job = write(tmp_path, row("mix-of-show"), row("mix-of-show", 1), row("ziplora"), row("merge"))
    assert plan(job) == 0
    told = capsys.readouterr().out
    assert "fused adapters    2 to make (mix-of-show 1, ziplora 1), 0 there, for 3 rows" in told
    assert f"evaluations     {2 * 20 + 4 * 100:,}\n" in told
    rows = prepare(load_job(job)).rows
    fusion = fusion_of(rows[0], dtype="float32")
    assert fusion is not None
    kept = tmp_path / "out" / fused_name(fusion.key)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    assert plan(job) == 0
    assert "1 to make (ziplora 1), 1 there, for 3 rows" in capsys.readouterr().out


def test_the_embedded_world_has_the_loras_of_these_tests():
    names = {
        entry["name"] for entry in yaml.safe_load(emoji_world.lora_catalog().read_text())["loras"]
    }
    assert names.issuperset(PAIR)
