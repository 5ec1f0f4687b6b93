"""``clora loras inspect``: what is told, to whom, and with which exit code."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from hub_kit import Hub, opened, running_hub
from input_kit import kohya_tensors, safetensors_bytes, write_lora

from jobs.cli import main
from manifests.loras.catalog import read_lora_catalog


def inspect(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["loras", "inspect", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_several_files_at_once_good_ones_out_bad_ones_to_errors(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    good = write_lora(tmp_path / "good.safetensors", width=768)
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"\x80\x02}q\x00.")
    assert inspect(good, bad, tmp_path / "none.safetensors") == 2
    told = capfd.readouterr()
    assert f"{good}: kohya LoRA for SD1.x" in told.out
    assert "rank:     4, alpha 4 (scale 1)" in told.out
    assert f"{bad} is a Python pickle" in told.err
    assert "none.safetensors does not exist" in told.err
    assert "Traceback" not in told.err
    assert inspect(good) == 0


def test_the_same_lora_under_another_name_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    tensors = kohya_tensors()
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    first.write_bytes(safetensors_bytes(tensors))
    layer = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    down, up, _ = tensors.values()
    second.write_bytes(
        safetensors_bytes({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up})
    )
    assert inspect(first, second) == 0
    assert f"the same LoRA as {first}" in capfd.readouterr().out


def test_a_catalog_of_the_good_ones_can_be_used_as_it_is(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        path = write_lora(tmp_path / f"{name}.safetensors", seed=len(name))
        path.write_bytes(safetensors_bytes(kohya_tensors(), metadata={"ss_output_name": "cat"}))
    (tmp_path / "bad.safetensors").write_bytes(b"")
    assert inspect("--catalog", "one.safetensors", "bad.safetensors", "two.safetensors") == 2
    Path("loras.yaml").write_text(capfd.readouterr().out)
    catalog = read_lora_catalog(str(tmp_path / "loras.yaml"))
    assert not catalog.problems
    assert {name: entry.uri for name, entry in catalog.entries.items()} == {
        "cat": str(tmp_path / "one.safetensors"),
        "cat-2": str(tmp_path / "two.safetensors"),
    }


def test_what_a_terminal_would_obey_is_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    metadata = {"ss_output_name": "cat\x1b[2J\x07\u202e", "modelspec.license": "\x1b]0;x\x07MIT"}
    evil = tmp_path / "\x1b[31mevil\n.safetensors"
    evil.write_bytes(safetensors_bytes(kohya_tensors(), metadata=metadata))
    assert inspect(evil, tmp_path / "\x1b[0m.safetensors") == 2
    told = capfd.readouterr()
    assert not {"\x1b", "\x07", "\u202e"} & set(told.out + told.err)
    assert "\\x1b[31mevil\\n.safetensors: kohya LoRA" in told.out


def test_it_waits_for_no_model_library(tmp_path: Path):
    path = write_lora(tmp_path / "x.safetensors")
    code = f"""
import sys
from jobs.cli import main
try:
    main(["loras", "inspect", {str(path)!r}, "--catalog"])
except SystemExit as ended:
    assert not ended.code, ended.code
assert not {{"torch", "ray", "diffusers", "peft", "safetensors"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub() as hub, opened(hub, tmp_path / "hub"):
        yield hub


def test_files_of_the_hub_are_told_with_their_commit(hub: Hub, capfd: pytest.CaptureFixture[str]):
    commit = hub.commit("owner/name", {"my-cat.safetensors": safetensors_bytes(kohya_tensors())})
    assert inspect("owner/name@main:my-cat.safetensors", "owner/name@main:no.safetensors") == 2
    told = capfd.readouterr()
    assert told.out.startswith(f"owner/name@{commit}:my-cat.safetensors: kohya LoRA for ")
    assert told.err.startswith("owner/name@main:no.safetensors does not exist: ")


def test_a_catalog_of_files_of_the_hub_pins_them(
    hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    tensors = safetensors_bytes(kohya_tensors())
    commit = hub.commit(
        "owner/name",
        {"my-cat.safetensors": tensors, "adapter_model.safetensors": tensors},
    )
    names = ("my-cat.safetensors", "", "adapter_model.safetensors")
    assert inspect("--catalog", *(f"owner/name@main:{name}" for name in names)) == 0
    (tmp_path / "loras.yaml").write_text(capfd.readouterr().out)
    catalog = read_lora_catalog(str(tmp_path / "loras.yaml"))
    assert {name: entry.uri for name, entry in catalog.entries.items()} == {
        "my-cat": f"owner/name@{commit}:my-cat.safetensors",
        "name": f"owner/name@{commit}:",
        "name-2": f"owner/name@{commit}:adapter_model.safetensors",
    }
    assert all(entry.sha256 for entry in catalog.values())


def test_a_hub_that_is_away_is_no_fault_of_the_file(hub: Hub, capfd: pytest.CaptureFixture[str]):
    hub.refusals["owner/name"] = (503, "")
    assert inspect("owner/name@main:my-cat.safetensors") == 1
    assert "cannot be fetched from the hub (HTTP status 503; tried once)" in capfd.readouterr().err


def test_the_hub_of_these_tests_says_nothing_of_what_it_does_not_know(
    hub: Hub, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{hub.endpoint}/api/other")  # noqa: S310, an http address of loopback
    assert hub.requests == ["GET /api/other"]
    assert capfd.readouterr().err == ""
