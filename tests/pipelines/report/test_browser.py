"""The report as people meet it: opened from disk in a browser, on a desk and on a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_kit import HOSTILE, write_output

from pipelines.evaluation.evaluate import evaluate
from pipelines.report.attention import attention_sheet, maps_name
from pipelines.report.write import write_report
from pipelines.units.damages import Damages
from pipelines.units.output_table import read_output_rows

api = pytest.importorskip("playwright.sync_api", reason="playwright is a development dependency")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium"
)

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = {"desk": (1280, 900), "phone": (390, 844)}

SEES = Damages(note=print)


@pytest.fixture(scope="module")
def page_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    storage = write_output(tmp_path_factory.mktemp("browser") / "out")
    for row in read_output_rows(storage, ["key"]).to_pylist():
        maps, masks = np.ones((3, 2, 4, 4), np.float32), np.ones((3, 3, 4, 4), bool)
        sheet = attention_sheet(np.zeros((8, 8, 3), np.uint8), maps, masks, ["one", "other"])
        storage.put(maps_name(row["key"]), sheet)
    evaluation = evaluate(storage, damages=SEES)
    facts = [("model", "small")]
    name = write_report(storage, evaluation, title="a run", facts=facts, damages=SEES)
    return (Path(storage.uri) / name).as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium with a profile of its own that is thrown away."""
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, headless=True, args=list(FLAGS)
        )
        yield opened
        opened.close()


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> dict[str, int]:
    width, height = SIZES[request.param]
    return {"width": width, "height": height}


@pytest.fixture
def page(browser: Any, page_url: str, size: dict[str, int]) -> Iterator[Any]:
    """The report, open; it fails the test on any console message, error or request elsewhere."""
    context = browser.new_context(viewport=size)
    opened = context.new_page()
    told: list[str] = []
    opened.on("console", lambda message: told.append(f"console: {message.text}"))
    opened.on("pageerror", lambda error: told.append(f"error: {error}"))
    opened.on("requestfailed", lambda one: told.append(f"not loaded: {one.url}"))
    opened.on(
        "request",
        lambda one: None if one.url.startswith(("file:", "data:")) else told.append(one.url),
    )
    opened.goto(page_url)
    opened.wait_for_selector(".cell")
    yield opened
    assert told == []
    context.close()


def names(page: Any) -> set[str]:
    return set(page.locator(".cell .under span:first-child").all_text_contents())


def test_nothing_is_wider_than_the_window(page: Any):
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_pictures_are_there_and_side_by_side(page: Any):
    first = page.locator(".line").first
    assert first.locator(".cell").count() == 3
    first.locator("img").first.scroll_into_view_if_needed()
    api.expect(first.locator("img").first).to_have_js_property("naturalWidth", 8)


def test_filters_choose_by_method_set_and_status(page: Any):
    page.get_by_role("checkbox", name="merge").click()
    assert names(page) == {"clora", "switch"}
    page.get_by_label("LoRA set", exact=True).select_option(label="cat + owl")
    assert set(page.locator(".line h3").all_text_contents()) == {"a cat and a owl"}
    assert page.locator(".line").count() == 6
    page.get_by_label("LoRA set", exact=True).select_option(label="all")
    page.get_by_role("checkbox", name="merge").click()
    page.get_by_label("Status", exact=True).select_option(label="failed")
    assert page.locator(".cell").count() == page.locator(".cell.failed").count() == 4
    page.get_by_label("Status", exact=True).select_option(label="made")
    assert page.locator(".cell.failed").count() == 0
    page.get_by_label("Prompt contains").fill("OWL")
    assert page.locator(".line").count() == 6
    page.get_by_label("Prompt contains").fill("nobody")
    assert "Nothing matches" in page.locator("#count").text_content()


def test_filters_and_pictures_work_by_keyboard_alone(page: Any):
    page.get_by_role("checkbox", name="clora").focus()
    page.keyboard.press("Space")
    assert "clora" not in names(page)
    page.get_by_label("Status", exact=True).focus()
    page.keyboard.press("f")  # the first option that begins so
    page.keyboard.press("Enter")
    assert page.locator(".cell").count() == page.locator(".cell.failed").count() == 3
    page.locator(".cell").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail-groups h4")
    assert "no subject in it" in page.locator("#detail-groups").text_content()
    title = page.locator("#detail-title").text_content()
    told = page.locator("#detail-groups").text_content()
    page.keyboard.press("ArrowRight")
    api.expect(page.locator("#detail-groups")).not_to_have_text(told)
    assert page.locator("#detail-title").text_content() == title
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()
    assert page.evaluate("document.activeElement.className").startswith("cell")


def test_pages_turn_and_their_ends_are_ends(page: Any):
    first = page.locator("#sheet").inner_text()
    assert page.get_by_role("button", name="Previous").first.is_disabled()
    page.get_by_role("button", name="Next").first.click()
    assert page.locator("#sheet").inner_text() != first
    page.get_by_role("button", name="Next").first.click()
    assert page.locator("#page").text_content() == "Page 3 of 3"
    assert page.get_by_role("button", name="Next").first.is_disabled()


def test_a_picture_shows_its_provenance_and_the_command_that_makes_it_again(page: Any):
    page.locator(".cell:not(.failed)").first.click()
    page.wait_for_selector("#detail-groups h4")
    assert page.locator("#detail-command").text_content().startswith("clora render images/")
    api.expect(page.locator("#detail-image img")).to_have_js_property("naturalWidth", 8)
    assert "images/" in page.locator("#detail-image img").get_attribute("src")
    sheet = page.get_by_alt_text("Attention map and mask of each concept, step by step")
    api.expect(sheet).not_to_have_js_property("naturalWidth", 0)
    page.keyboard.press("Escape")


def test_hostile_texts_are_texts(page: Any):
    page.get_by_label("LoRA set", exact=True).select_option(label="<b>felix</b> + dog")
    assert page.locator(".line h3").first.text_content() == HOSTILE
    page.locator(".cell").first.click()
    page.wait_for_selector("#detail-groups h4")
    assert HOSTILE in page.locator("#detail-groups").text_content()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#detail-groups img, .line h3 img, .line b").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, page_url: str, size: dict[str, int], scheme: str):
    axe_api = pytest.importorskip("axe_playwright_python.sync_playwright")
    # The checker reads style sheets in ways that the page's own policy forbids.
    context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    opened = context.new_page()
    opened.goto(page_url)
    opened.wait_for_selector(".cell")
    for is_open in (False, True):
        if is_open:
            opened.locator(".cell:not(.failed)").first.click()
            opened.wait_for_selector("#detail-groups h4")
        found = axe_api.Axe().run(opened).response["violations"]
        serious = [
            (one["id"], [node["html"][:120] for node in one["nodes"]][:3])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
    context.close()
