import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from report_kit import HOSTILE, HOSTILE_LORA, METHODS, write_output

from pipelines.evaluation.evaluate import evaluate
from pipelines.report.page import ASSETS
from pipelines.report.thumbnails import SIDE_PX, make_thumbnail, write_thumbnails
from pipelines.report.write import write_report
from pipelines.storage.local import LocalStorage
from pipelines.units.committed_image import IMAGE_COLUMNS
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

SEES = Damages(note=print)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> LocalStorage:
    storage = write_output(tmp_path_factory.mktemp("report") / "out")
    evaluation = evaluate(storage, damages=SEES)
    facts = [("model", "a & b")]
    write_report(storage, evaluation, title="t<i>tle", facts=facts, damages=SEES)
    return storage


def data_of(script: bytes) -> Any:
    return json.loads(script.decode().partition("(")[2].rpartition(");")[0])


def details(storage: LocalStorage) -> list[dict[str, Any]]:
    names = storage.list("report/data", ".js")
    chunks = sorted(
        json.loads("[" + storage.read(name).decode().partition("(")[2].rpartition(");")[0] + "]")
        for name in names
        if "details" in name
    )
    return [detail for _, chunk in chunks for detail in chunk]


def fact(detail: dict[str, Any], name: str) -> str | None:
    return next((v for _, facts in detail["groups"] for n, v in facts if n == name), None)


def test_the_index_leads_from_every_cell_to_its_own_thumbnail_and_provenance(output: LocalStorage):
    index = data_of(output.read("report/data/index.js"))
    listed = details(output)
    rows = read_output_rows(output, ["key", "seed"]).to_pylist()
    seeds = {row["key"]: row["seed"] for row in rows}
    seen = 0
    for prompt, _, seed, cells in index["lines"]:
        for arm, cell in zip(index["arms"], cells, strict=True):
            if cell is None:
                continue
            seen += 1
            detail = listed[cell[2]]
            key = fact(detail, "key")
            assert key is not None
            assert key.startswith(cell[0])
            assert fact(detail, "method") == arm
            assert fact(detail, "seed") == str(seed)
            assert fact(detail, "prompt") == index["prompts"][prompt]
            if len(cell) == 3:
                assert seeds[key] == seed
                assert output.exists(f"report/thumbs/{cell[0]}.webp")
                assert output.exists(detail["image"].removeprefix("../"))
                assert detail["command"] == f"clora render images/{key[:2]}/{key}.png"
    assert seen == len(listed) == len(seeds) + 4
    assert set(index["arms"]) == set(METHODS)


def test_provenance_names_all_that_made_the_image(output: LocalStorage):
    made = next(detail for detail in details(output) if detail["image"])
    names = {name for _, facts in made["groups"] for name, _ in facts}
    assert {
        "prompt",
        "seed",
        "sampler",
        "base model",
        "versions",
        "device",
        "run",
        "row",
        "key",
    } <= names
    assert any(name.startswith("LoRA ") for name in names)
    reasons = [fact(detail, "why") for detail in details(output) if not detail["image"]]
    assert reasons.count("no subject in it") == 3
    assert reasons.count(f"the file {HOSTILE} is no LoRA") == 1


def test_the_page_names_no_place_but_its_own_files(output: LocalStorage):
    page = output.read("report/index.html").decode()
    links = re.findall(r"""(?:src|href)=["']([^"']*)["']""", page)
    own = [link for link in links if not link.startswith(("#", "data:"))]
    assert {"report.css", "gallery.js", "data/index.js", "scores.csv"} <= set(own)
    for link in own:
        assert output.exists(f"report/{link}"), link
    for name in ASSETS:
        assert b"http" not in output.read(f"report/{name}")


def test_texts_of_others_are_escaped_everywhere(output: LocalStorage):
    page = output.read("report/index.html").decode()
    assert "<script>window" not in page
    assert HOSTILE_LORA not in page
    assert "t&lt;i&gt;tle" in page
    assert "&lt;script&gt;window" in page
    index = data_of(output.read("report/data/index.js"))
    assert HOSTILE in index["prompts"]


def test_failures_are_counted_by_reason(output: LocalStorage):
    page = output.read("report/index.html").decode()
    assert "prompt, PromptError: no subject in it" in page
    assert "4 rows failed" in page


def test_thumbnails_of_an_earlier_report_are_kept(output: LocalStorage):
    rows = read_output_rows(output, IMAGE_COLUMNS).to_pylist()
    folder = Path(output.uri) / "report/thumbs"
    missing, empty, *kept = (folder / f"{row['key'][:16]}.webp" for row in rows)
    missing.unlink()
    empty.write_bytes(b"")
    before = [path.stat().st_mtime_ns for path in kept]
    assert write_thumbnails(output, rows, SEES) == frozenset()
    assert missing.stat().st_size
    assert empty.stat().st_size
    assert [path.stat().st_mtime_ns for path in kept] == before


@pytest.mark.parametrize(("size", "small"), [((8, 8), (8, 8)), ((1024, 512), (SIDE_PX, 128))])
def test_small_images_stay_as_they_are_and_large_ones_get_small(
    size: tuple[int, int], small: tuple[int, int]
):
    image = Image.effect_noise(size, 90).convert("RGB")
    sink = io.BytesIO()
    image.save(sink, "PNG")
    thumb = Image.open(io.BytesIO(make_thumbnail(sink.getvalue())))
    assert thumb.size == small
    if size == small:
        assert thumb.convert("RGB").tobytes() == image.tobytes()


def test_an_empty_output_has_a_page_that_says_so(tmp_path: Path):
    storage = LocalStorage(tmp_path / "out")
    write_report(storage, evaluate(storage, damages=SEES), title="empty", facts=[], damages=SEES)
    page = storage.read("report/index.html").decode()
    assert "There are no images yet." in page
    assert "No row failed." in page
