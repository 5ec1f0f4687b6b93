"""What a cluster would be sent: the files that Ray itself sends, told before they are too many."""

import random
import zipfile
from pathlib import Path

import pytest
import yaml

from cluster import upload
from cluster.ignore_patterns import ignored_by
from cluster.upload import described, main, measure_upload, read_excludes

ROOT = Path(__file__).parents[2]


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))
    return folder


def sent_by_ray(folder: Path, excludes: tuple[str, ...], archive: Path) -> list[str]:
    """Return the files in the archive that Ray itself makes."""
    from ray._private.runtime_env import packaging

    packaging._zip_files(str(folder), list(excludes), str(archive), include_gitignore=True)
    with zipfile.ZipFile(archive) as made:
        return sorted(name for name in made.namelist() if not name.endswith("/"))


PROJECT = (
    ".git/config",
    ".gitignore",
    ".venv/bin/python",
    ".ruff_cache/a",
    "README.md",
    "pyproject.toml",
    "clora_core/composer.py",
    "clora_core/__pycache__/composer.pyc",
    "clora_batch.egg-info/PKG-INFO",
    "emoji_world/weights/base/unet/model.safetensors",
    "emoji_world/weights/base/tokenizer/vocab.json",
    "emoji_world/weights/loras.yaml",
    "emoji_world/weights/dino/config.json",
    "emoji_world/manifests/demo.parquet",
    "tests/cluster/test_upload.py",
    "docs/methods.md",
    "benchmarks/a.py",
    "out/images/a.png",
    "outputs/rows/a.parquet",
    "demo_out/images/a.png",
    "job.yaml",
    "rows.jsonl",
)


def test_code_job_and_embedded_weights_go_and_everything_else_stays(tmp_path):
    sent = measure_upload(write(tmp_path, *PROJECT), read_excludes())
    assert list(sent.sizes) == [
        "README.md",
        "clora_core/composer.py",
        "emoji_world/manifests/demo.parquet",
        "emoji_world/weights/base/tokenizer/vocab.json",
        "emoji_world/weights/base/unet/model.safetensors",
        "emoji_world/weights/dino/config.json",
        "emoji_world/weights/loras.yaml",
        "job.yaml",
        "pyproject.toml",
        "rows.jsonl",
    ]


def test_this_very_folder_fits_and_holds_every_package():
    sent = measure_upload(ROOT, read_excludes())
    assert sent.fits
    packages = {"clora_core", "manifests", "pipelines", "jobs", "cluster", "emoji_world"}
    assert packages <= {name.partition("/")[0] for name in sent.sizes}
    weights = [path for path in (ROOT / "emoji_world/weights").rglob("*") if path.is_file()]
    assert {path.relative_to(ROOT).as_posix() for path in weights} <= set(sent.sizes)


def test_ray_sends_the_same_files_and_as_many_bytes(tmp_path):
    folder = write(tmp_path / "project", *PROJECT, "deep/.rayignore", "deep/a.log", "deep/b/c.txt")
    (folder / ".gitignore").write_text("# remark\n/rows.jsonl\n*.md\n!README.md\n")
    (folder / "deep/.rayignore").write_text("*.log\n/b/\n")
    measured = measure_upload(folder, read_excludes())
    archive = tmp_path / "ray.zip"
    assert sent_by_ray(folder, read_excludes(), archive) == list(measured.sizes)
    empty_folders = archive.stat().st_size - measured.archive_bytes
    assert 0 <= empty_folders < 1000


def test_patterns_mean_what_they_mean_to_ray():
    """Compared with the library that Ray matches with, over random patterns and paths."""
    from ray._private.thirdparty.pathspec import PathSpec

    draw = random.Random(0)
    words = ["a", "b", "ab", ".a", "a.b", "b.log"]
    globs = [*words, "a*", "*.log", "?", ".?*", "[ab]", "[!a]", "a?b"]
    whole = ["**/b.log", "a/**", "a/**/b", "*/b", "# a", "", "a "]
    for _ in range(3000):
        glob = "/".join(draw.choices(globs, k=draw.choice([1, 1, 2, 3])))
        pattern = draw.choice(["", "", "/"]) + glob + draw.choice(["", "", "/"])
        patterns = [pattern, draw.choice([f"!{draw.choice(globs)}", *whole])]
        path = "/".join(draw.choices(words, k=draw.choice([1, 2, 3])))
        expected = PathSpec.from_lines("gitwildmatch", patterns).match_file(path)
        assert ignored_by(patterns)(path) == expected, (patterns, path)


def test_too_much_is_told_with_the_largest_files_and_exits_2(tmp_path, capsys):
    write(tmp_path, "small.txt")
    (tmp_path / "models").mkdir()
    with (tmp_path / "models/big.safetensors").open("wb") as file:
        file.truncate(upload.LIMIT_BYTES)
    assert main([str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert "2 files, 100.0 MiB, which is too much for Ray's 100 MiB" in out
    assert out.splitlines()[1].endswith("100.00 MiB  models/big.safetensors")
    assert "name what need not go under excludes in runtime_env.yaml" in out


def test_a_folder_that_fits_exits_0_and_none_exits_2(tmp_path, capsys):
    assert main([str(write(tmp_path, "job.yaml"))]) == 0
    assert "1 files, 0.0 MiB, which fits Ray's 100 MiB" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err


def test_largest_come_first(tmp_path):
    folder = write(tmp_path, "a", "bbb", "cc")
    lines = described(measure_upload(folder, ())).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["bbb", "cc", "a"]


def test_excludes_that_are_no_list_are_refused(tmp_path):
    path = tmp_path / "env.yaml"
    path.write_text("excludes: tests\n")
    with pytest.raises(ValueError, match="should be a mapping whose excludes are a list"):
        read_excludes(path)


def test_the_limit_and_the_default_excludes_are_rays_own():
    from ray._private import ray_constants

    assert upload.LIMIT_BYTES == ray_constants.DASHBOARD_CLIENT_MAX_SIZE
    assert list(upload.RAY_EXCLUDES) == ray_constants.get_runtime_env_default_excludes()


def test_ray_reads_the_runtime_environment():
    from ray.runtime_env import RuntimeEnv

    values = yaml.safe_load((ROOT / "cluster/runtime_env.yaml").read_text())
    assert RuntimeEnv(**values)["env_vars"]["PYTHONUNBUFFERED"] == "1"
