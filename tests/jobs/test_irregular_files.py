"""A pipe, a device, a socket or a folder where a file is asked for: a sentence, never a wait."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from input_kit import row, write_job

from jobs.cli import main
from manifests.places.locations import LocationError, expand, open_file, open_stream, read_bytes
from manifests.weights.base_model import inspect_base_model
from manifests.weights.digests import folder_digest
from manifests.weights.model_config import BaseModelProblem
from manifests.weights.model_layers import UnknownLayersError, model_layers

Make = Callable[[Path], None]


def make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may be a hundred characters
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.chdir(here)


KINDS: dict[str, Make] = {
    "is a pipe and not a regular file": os.mkfifo,
    "is a device or terminal and not a regular file": lambda path: path.symlink_to("/dev/zero"),
    "is a socket and not a regular file": make_socket,
    "is a folder; name a file": Path.mkdir,
}


@pytest.fixture(params=list(KINDS.items()), ids=[sentence.split()[2] for sentence in KINDS])
def kind(request: pytest.FixtureRequest) -> tuple[str, Make]:
    return request.param


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command line that is refused; return what it said."""

    def run(*arguments: str | Path, code: int = 2) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        assert ended.value.code == code, output
        assert "Traceback" not in output.err
        return output.out + output.err

    return run


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.csv.gz", "rows.parquet", "rows"])
def test_for_a_manifest(tmp_path: Path, said, name: str):
    job = write_job(tmp_path, [row()], manifest=name)
    for sentence, make in KINDS.items():
        if make is not Path.mkdir:  # a folder of manifests is one
            (tmp_path / name).unlink(missing_ok=True)
            make(tmp_path / name)
            assert f"{name} {sentence}" in said("validate", job)


def test_for_what_a_shell_calls_a_file_and_is_a_pipe(tmp_path: Path, said):
    reader, writer = os.pipe()
    try:
        job = write_job(tmp_path, [row()], manifest=f"/dev/fd/{reader}")
        assert f"/dev/fd/{reader} is a pipe and not a regular file; write it to a file first" in (
            said("validate", job)
        )
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("command", ["validate", "plan", "compose", "sweep", "catalog"])
def test_for_a_job_a_sweep_or_a_catalog_spec(tmp_path: Path, said, kind, command: str):
    sentence, make = kind
    make(tmp_path / "spec.yaml")
    assert f"spec.yaml {sentence}" in said(command, tmp_path / "spec.yaml")


@pytest.mark.parametrize("name", ["loras.yaml", "loras.parquet"])
def test_for_a_catalog(tmp_path: Path, said, kind, name: str):
    sentence, make = kind
    make(tmp_path / name)
    job = write_job(tmp_path, [row()], loras=name)
    assert f"{name} {sentence}" in said("validate", job)


def test_for_a_mask_or_a_table_of_items(tmp_path: Path, said, kind):
    sentence, make = kind
    make(tmp_path / "mask.png")
    region = {"lora": "cat", "region": {"mask": "mask.png"}}
    job = write_job(tmp_path, [row(loras=[region, "dog"])])
    assert f"mask.png {sentence}" in said("validate", job)
    if make is not Path.mkdir:
        make(tmp_path / "items.csv")
        spec = {"output": "out", "base_model": "base", "loras": "loras/loras.yaml"}
        spec |= {"items": "items.csv", "scenes": [{"scene": "s", "prompt": "a {item}"}]}
        (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
        assert f"items.csv {sentence}" in said("catalog", tmp_path / "spec.yaml")


def test_for_a_prompt_file_of_a_sweep(tmp_path: Path, said, kind):
    sentence, make = kind
    make(tmp_path / "lines.txt")
    compositions = [{"loras": ["polar-bear"], "prompt_file": "lines.txt"}]
    spec = {"output": "out", "compositions": compositions, "seeds": [1], "methods": ["merge"]}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(spec))
    assert f"lines.txt {sentence}" in said("sweep", tmp_path / "sweep.yaml")


def test_for_a_lora(tmp_path: Path, said, kind):
    _, make = kind
    job = write_job(tmp_path, [row(loras=["cat"], prompt="a cat")])
    (tmp_path / "loras/cat.safetensors").unlink()
    make(tmp_path / "loras/cat.safetensors")
    sentence = (
        "cat.safetensors is a folder without adapter_model.safetensors; name a .safetensors file"
        if make is Path.mkdir
        else "cat.safetensors is not a file but a folder or device"
    )
    assert sentence in said("loras", "inspect", tmp_path / "loras/cat.safetensors")
    assert sentence in said("validate", job)


@pytest.mark.parametrize("name", ["model_index.json", "unet/config.json", "vae/config.json"])
def test_for_a_file_of_a_base_model(tmp_path: Path, said, kind, name: str):
    sentence, make = kind
    job = write_job(tmp_path, [row()])
    (tmp_path / "base" / name).unlink()
    make(tmp_path / "base" / name)
    assert f"{name} {sentence}" in said("validate", job)
    with pytest.raises(BaseModelProblem, match=sentence):
        inspect_base_model(tmp_path / "base")
    if name == "model_index.json":
        with pytest.raises(UnknownLayersError, match=sentence):
            model_layers(tmp_path / "base")
    assert folder_digest(tmp_path / "base")


def test_for_whatever_is_opened_by_its_place(tmp_path: Path, kind):
    sentence, make = kind
    make(tmp_path / "x")
    place = str(tmp_path / "x")
    for open_place in (open_stream, open_file):
        with pytest.raises(LocationError, match=sentence), open_place(place):
            pass
    with pytest.raises(LocationError, match=sentence):
        read_bytes(place, max_bytes=10)
    if make is not Path.mkdir:
        with pytest.raises(LocationError, match=sentence):
            expand(place, suffixes=())
