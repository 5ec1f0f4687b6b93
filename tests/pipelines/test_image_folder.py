"""Images as files with readable names: right, safe on every system, and never one over another."""

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from engine_kit import BAD_ROW, Watcher, lora, request, row, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from inline_engine import run_inline
from PIL import Image
from typer.main import get_command

from clora_core.recipe.row import Row
from jobs.cli import app
from jobs.commands.export import export
from jobs.console.copying import counted
from pipelines.ledger.asked_rows import MANIFESTS_FOLDER
from pipelines.outputs.file_names import (
    DEFAULT_TEMPLATE,
    MAX_PART_BYTES,
    PLACEHOLDERS,
    FileNameError,
    name_template,
    without_case,
)
from pipelines.run import compose_rows
from pipelines.storage.local import LocalStorage
from pipelines.storage.storage import open_storage
from pipelines.units.committed_image import image_name

Export = Callable[..., int]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    run_inline(monkeypatch)
    return tmp_path / "out"


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    return tmp_path / "copies"


def compose(out: Path, manifest: Sequence[Row]) -> None:
    compose_rows(request(out, manifest), Watcher(), address=None)


def copied(out: Path, copies: Path, names: str = DEFAULT_TEMPLATE) -> int:
    return export(str(out), folder=str(copies), names=names)


def files(folder: Path) -> dict[str, bytes]:
    """Return the pictures in a folder by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "images.csv"
    }


def named(template: str, **changes: Any) -> str:
    """Return the name of one row."""
    values = {
        "row_id": "r", "method": "clora", "seed": 7, "key": "ab" * 32, "width": 8, "height": 16,
        "prompt": "a cat", "carried_json": "{}",
    }  # fmt: skip
    own = json.loads(changes.get("carried_json", "{}"))
    return name_template(template, list(own), base_model="sd15").name(values | changes)


def test_each_row_with_an_image_gets_its_file_and_a_line(
    out: Path, copies: Path, capsys: pytest.CaptureFixture[str]
):
    made = row(1)
    twin = row(1, key=made.key, row_id="twin")
    compose(out, [made, row(2, prompt=BAD_ROW), twin])
    assert copied(out, copies) == 0
    said = capsys.readouterr().out
    assert said == f"2 image(s) written, 1 row(s) have no image (see images.csv); in {copies}\n"
    image = (out / image_name(made.key)).read_bytes()
    assert files(copies) == {"row-1-clora-1.png": image, "twin-clora-1.png": image}
    assert "parameters" in Image.open(io.BytesIO(image)).info
    with (copies / "images.csv").open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["row_id"], line["file"]) for line in lines] == [
        ("row-1", "row-1-clora-1.png"), ("row-2", ""), ("twin", "twin-clora-1.png"),
    ]  # fmt: skip
    assert lines[1]["failure"] == "prompt: PromptError: no subject in it"


def test_an_export_that_is_run_again_keeps_what_is_there_and_adds_the_rest(
    out: Path, copies: Path, capsys: pytest.CaptureFixture[str]
):
    compose(out, rows(2))
    assert copied(out, copies) == 0
    first = copies / "row-0-clora-0.png"
    os.utime(first, (1, 1))
    (copies / "row-1-clora-1.png").unlink()
    compose(out, rows(3))
    assert copied(out, copies) == 0
    assert "2 image(s) written, 1 were there" in capsys.readouterr().out
    assert first.stat().st_mtime == 1
    assert len(files(copies)) == 3


def test_output_and_copies_may_be_in_a_bucket(
    s3_uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run_inline(monkeypatch)
    place: dict[str, Any] = {"storage": open_storage(f"{s3_uri}/out"), "references_folder": None}
    compose_rows(request(Path("/unused"), rows(2), **place), Watcher(), address=None)
    for said in ("2 image(s) written;", "0 image(s) written, 2 were there;"):
        assert export(f"{s3_uri}/out", folder=f"{s3_uri}/copies", names="{method}/{seed}") == 0
        assert said in capsys.readouterr().out
    copies = open_storage(f"{s3_uri}/copies")
    assert sorted(copies.walk("")) == ["clora/0.png", "clora/1.png", "images.csv"]
    assert b"row-1,clora/1.png," in copies.read("images.csv")
    assert b"row-1,images/" in open_storage(f"{s3_uri}/out").read("images.csv")


def test_a_row_that_is_written_twice_in_the_manifest_has_one_file(
    out: Path, copies: Path, capsys: pytest.CaptureFixture[str]
):
    compose(out, [row(1), row(1)])
    assert copied(out, copies) == 0
    assert "1 image(s) written, 1 row(s) are twice in the manifest" in capsys.readouterr().out


@pytest.mark.parametrize("names", ["{method}.png", "{seed}-{kind}"])
def test_rows_of_one_name_are_all_named_and_nothing_is_written(
    out: Path, copies: Path, names: str, capsys: pytest.CaptureFixture[str]
):
    kinds = ["Stra\u00dfe", "STRASSE", "other", "OTHER"]
    compose(out, [row(1, row_id=f"r{n}", carried_json=json.dumps({"kind": kind}), key=f"{n:064x}")
                  for n, kind in enumerate(kinds)])  # fmt: skip
    assert copied(out, copies, names) == 2
    said = capsys.readouterr().err
    assert f"gives {3 if 'method' in names else 2} row(s) the name of another row" in said
    assert "for rows r0 and r1" in said
    assert "add {row_id} or {key}" in said
    assert not copies.exists()


@pytest.mark.parametrize("there", ["row-0-clora-0.png", "ROW-0-clora-0.PNG", "images.csv"])
def test_files_of_others_are_never_overwritten(
    out: Path, copies: Path, there: str, capsys: pytest.CaptureFixture[str]
):
    compose(out, rows(2))
    copies.mkdir()
    (copies / there).write_bytes(b"somebody's own")
    assert copied(out, copies) == 2
    assert f"1 file(s) in {copies} have the name of a copy" in capsys.readouterr().err
    assert [path.read_bytes() for path in copies.iterdir()] == [b"somebody's own"]
    assert copied(out, out) == 2
    assert "is the output itself" in capsys.readouterr().err


def test_an_image_that_is_damaged_is_taken_from_its_row(
    out: Path, copies: Path, capsys: pytest.CaptureFixture[str]
):
    compose(out, rows(6))
    (out / image_name(row(0).key)).write_bytes(b"damaged")
    assert copied(out, copies) == 0
    assert "its copy in rows/" in capsys.readouterr().err
    assert len(files(copies)) == 6


def test_an_output_of_an_earlier_release_lists_the_rows_that_were_tried(out: Path, copies: Path):
    compose(out, [row(0, loras=(lora("cat", weight=0.5),)), row(1, prompt=BAD_ROW)])
    storage = LocalStorage(out)
    (name,) = storage.list(MANIFESTS_FOLDER, ".parquet")
    storage.delete(name)
    assert copied(out, copies) == 1
    text = (copies / "images.csv").read_text("utf-8-sig")
    assert "row-0,row-0-clora-0.png,a cat and a dog,,cat:0.5,0,clora,fake,8,8," in text
    assert "no subject in it" in text


@pytest.mark.parametrize(
    ("template", "changes", "name"),
    [
        ("{row_id}-{method}-{seed}.PNG", {}, "r-clora-7.png"),
        ("{base_model}_{width}x{height}", {}, "sd15_8x16.png"),
        ("{base_model}", {"carried_json": '{"base_model":"xl"}'}, "xl.png"),
        ("{method}/{client}/{row_id}", {"carried_json": '{"client":"A/B"}'}, "clora/A_B/r.png"),
        ("{row_id}", {"row_id": "../../etc/passwd"}, "_._.._etc_passwd.png"),
        ("{row_id}/x", {"row_id": ".."}, "_/x.png"),
        ("{row_id}/x", {"row_id": ""}, "_/x.png"),
        ("{row_id}", {"row_id": 'a<b>:"c"|?*\\d'}, "a_b___c_____d.png"),
        ("{row_id}", {"row_id": "a\x00b\u202ec"}, "a_b_c.png"),
        ("{row_id}", {"row_id": "con"}, "con_.png"),
        ("{row_id}", {"row_id": "LPT1.v2"}, "LPT1_.v2.png"),
        ("{row_id}/x", {"row_id": "end. ."}, "end/x.png"),
        ("{row_id}", {"row_id": ".hidden"}, "_hidden.png"),
        ("{row_id}", {"row_id": "Zoe\u0308"}, "Zo\u00eb.png"),
        ("{prompt}", {"prompt": "a cat " * 20}, f"{'a cat ' * 9}a cat.png"),
        ("{prompt}", {"prompt": "猫" * 100}, f"{'猫' * 60}.png"),
        ("{key}", {"carried_json": '{"key":"mine"}'}, f"{'ab' * 32}.png"),
        ("{carried.key}", {"carried_json": '{"key":"mine"}'}, "mine.png"),
        ("{seed}-{carried.width}", {"carried_json": '{"seed":1,"width":2}'}, "7-2.png"),
        ("{flag}-{n}", {"carried_json": '{"flag":true,"n":null}'}, "true-.png"),
    ],
)
def test_a_name_says_what_the_template_asks_and_is_safe(
    template: str, changes: Mapping[str, Any], name: str
):
    assert named(template, **changes) == name


@settings(max_examples=40)
@given(st.text(max_size=300))
def test_any_text_becomes_a_name_that_every_system_takes(text: str):
    name = named("{row_id}", row_id=text)
    assert len(name.encode()) <= MAX_PART_BYTES
    assert not set(name) & set('<>:"/\\|?*')
    assert name.isprintable() or " " in name or not name.isascii()
    assert not name.startswith((".", " "))
    assert not name.removesuffix(".png").endswith((".", " "))
    assert name.partition(".")[0].upper() not in ("CON", "NUL", "AUX", "PRN", "COM1", "LPT9")


def test_names_that_differ_in_case_or_composition_are_one():
    assert without_case("Stra\u00dfe") == without_case("STRASSE")
    assert without_case("Zo\u00eb") == without_case("ZOE\u0308")
    assert without_case("a") != without_case("b")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{row-id}.png", "{row-id}: did you mean 'row_id'?"),
        ("{client}-{clients}.png", "{clients}: did you mean 'client'?"),
        ("{}.png", "unknown placeholders: {}"),
        ("{row_id.png", "a brace without its other one"),
        ("{row_id}.jpg", "end it with .png"),
        ("a/.png", "names no file"),
        ("", "names no file"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template: str, says: str):
    with pytest.raises(FileNameError) as refused:
        name_template(template, ["client"], base_model="m")
    assert says in str(refused.value)
    if "unknown" in str(refused.value):
        assert all(f"{{{name}}}" in str(refused.value) for name in (*PLACEHOLDERS, "client"))


def test_the_command_says_what_it_needs_and_its_template_is_this_one(
    out: Path, capsys: pytest.CaptureFixture[str]
):
    compose(out, rows(1))
    assert export(str(out)) == 2
    assert "--folder DIR" in capsys.readouterr().err
    command: Any = get_command(app)
    defaults = {option.name: option.default for option in command.commands["export"].params}
    assert defaults["names"] == DEFAULT_TEMPLATE


def test_progress_of_a_long_copy_is_a_line_now_and_then():
    stream, now = io.StringIO(), iter([0.0, 1.0, 40.0, 40.0, 41.0])
    with counted("files", stream, lambda: next(now)) as progress:
        for done in (1, 2, 3):
            progress(done, 3_000)
    assert stream.getvalue() == "files 2/3,000\n"
