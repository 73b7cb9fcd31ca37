"""The page in a real browser: no error, nothing loaded, every figure with its data, answers by keyboard.

Needs Chromium (Debian: `apt install chromium`; else name one in $CHROMIUM) and playwright, which drives it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from grao.report.colours import DARK, LIGHT
from research.report import write_report

playwright_api = pytest.importorskip(
    "playwright.sync_api", reason="playwright drives the browser: pip install playwright"
)

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}

WriteRun = Callable[..., Path]


def chromium() -> str:
    """The program: $CHROMIUM, one on the path, or the one that playwright installed."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        with playwright_api.sync_playwright() as playwright:
            found = playwright.chromium.executable_path
    if not Path(found).exists():
        pytest.skip("no Chromium: install it (Debian: apt install chromium), or name one in $CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, once for all tests here."""
    program = chromium()
    with playwright_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page, and everything that went wrong on it."""

    def __init__(self, browser: Any, path: Path, size: str = "desktop", scheme: str = "light") -> None:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
        )
        self.page = context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.close = context.close

    def data(self, selector: str) -> Any:
        """JSON of a script."""
        return json.loads(self.page.locator(selector).text_content())

    def saved(self, button: Any) -> str:
        """What a download button saves."""
        with self.page.expect_download() as download:
            button.click()
        return Path(download.value.path()).read_text(encoding="utf-8")


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens a page, and closes it after the test."""
    pages: list[Opened] = []

    def open_(path: Path, *arguments: str) -> Opened:
        pages.append(Opened(browser, path, *arguments))
        return pages[-1]

    yield open_
    for page in pages:
        page.close()


@pytest.fixture
def report(tmp_path: Path, write_run: WriteRun, made: SimpleNamespace) -> Path:
    """A run, a comparison and an experiment on one page; hostile texts among the answers."""
    evil = [text.replace("\ud800", "") for text in made.HOSTILE]
    rewards = ((0.0, 0.0), (1.5, 1.5), (None, 2.0))
    steps = {
        step: [
            row
            for i, (first, second) in enumerate(rewards)
            for row in made.group(i, f"prompt {i}", "fine", [(f"step {step}", first), (evil[i], second)])
        ]
        for step in (1, 10, 20)
    }
    run = write_run("run", made.metrics(25), steps)
    demo = made.write_json(tmp_path / "demo", "comparison.json", made.comparison(made.HOSTILE))
    record = made.experiment()
    for aggregate in record["aggregates"]:
        aggregate["axes"]["regime"] += ', "so to say"'
    experiment = made.write_json(tmp_path / "x", "summary.json", record)
    return write_report([demo, run, experiment], tmp_path / "report.html").path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_it_opens_on_every_screen(size: str, scheme: str, report: Path, opened: Callable[..., Opened]) -> None:
    """Oracle: no message on the console and no request but the file's; no wider than the screen, also with every table
    open; the paper's colour of the scheme; the reader's choice of the other one stays."""
    found = opened(report, size, scheme)
    page = found.page
    paper = {"light": LIGHT["paper"], "dark": DARK["paper"]}

    def background() -> str:
        numbers = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
        return "#" + "".join(f"{n:02x}" for n in numbers)

    assert background() == paper[scheme]
    page.evaluate("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    page.wait_for_function("[...document.querySelectorAll('details.data .box')].every((box) => box.firstChild)")
    assert page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    other = {"light": "dark", "dark": "light"}[scheme]
    page.locator("button.theme").click()
    assert background() == paper[other]
    page.reload()
    assert background() == paper[other]
    assert page.evaluate("window.hacked") is None
    assert found.errors == []
    assert set(found.requests) <= {report.as_uri(), "data:,"}


def test_text_can_be_read_on_a_phone(report: Path, opened: Callable[..., Opened]) -> None:
    """Oracle: no text of a chart is shown below 10 pixels, on a phone or on a desk."""
    sizes = """[...document.querySelectorAll('.chart svg')].filter((svg) => svg.getBoundingClientRect().width)
        .map((svg) => 11 * svg.getBoundingClientRect().width / svg.viewBox.baseVal.width)"""
    for size in SIZES:
        shown = opened(report, size).page.evaluate(sizes)
        assert len(shown) > 20
        assert min(shown) >= 10, size
        assert max(shown) <= 16, size


def test_every_figure_has_its_table(report: Path, opened: Callable[..., Opened]) -> None:
    """Oracle: the data that the figure embeds: the same columns, as many rows."""
    found = opened(report)
    found.page.evaluate("document.querySelectorAll('details.more').forEach((details) => { details.open = true; })")
    figures = found.page.locator("figure")
    assert figures.count() > 20
    for i in range(figures.count()):
        figure = figures.nth(i)
        data = json.loads(figure.locator(".figure-data").text_content())
        figure.locator("summary").click()
        figure.locator("tbody tr").first.wait_for()
        assert figure.locator("tbody tr").count() == min(300, len(data["rows"])) > 0
        assert figure.locator("thead th[scope=col]").all_text_contents() == data["columns"]
    assert found.errors == []


@pytest.mark.parametrize("place", [0, 3, 9, -1])
def test_figures_and_their_data_can_be_saved(place: int, report: Path, opened: Callable[..., Opened]) -> None:
    """Oracle: the CSV, read by Python, is the data that the figure embeds; the SVG is XML with the figure's title."""
    found = opened(report)  # a page of its own for few figures: Chromium swallows every eleventh file of a burst
    found.page.evaluate("document.querySelectorAll('details.more').forEach((details) => { details.open = true; })")
    figure = found.page.locator("figure").nth(place)
    data = json.loads(figure.locator(".figure-data").text_content())
    rows = list(csv.reader(io.StringIO(found.saved(figure.locator("[data-save=csv]")))))
    assert rows[0] == data["columns"]
    assert [[_read(cell) for cell in row] for row in rows[1:]] == data["rows"]
    picture = ElementTree.fromstring(found.saved(figure.locator("[data-save=svg]")))
    title = picture.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == figure.locator(".title").text_content()
    assert found.errors == []


def _read(cell: str) -> Any:
    """A cell of the CSV as JSON has it."""
    if cell == "":
        return None
    try:
        number = float(cell)
    except ValueError:
        return cell
    return number


def test_values_are_read_out_by_keyboard_and_pointer(report: Path, opened: Callable[..., Opened]) -> None:
    """Oracle: the rows of the figure's table, one after the other; then the bar that the pointer is on."""
    found = opened(report)
    page = found.page
    figure = page.locator("#s1-f1")
    rows = json.loads(figure.locator(".figure-data").text_content())["rows"]
    chart = figure.locator(".only-wide")
    chart.focus()
    for row in (rows[0], rows[1], rows[2]):
        page.keyboard.press("ArrowDown")
        text = chart.locator(".tip").text_content()
        assert row[1] in text
        assert f"value {row[2]:g} [{row[3]:g}, {row[4]:g}]" in text
    page.keyboard.press("Escape")
    assert chart.locator(".tip").text_content() == ""
    box = chart.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 6 + 25 * 3.5)
    assert rows[3][1] in chart.locator(".tip").text_content()
    assert found.errors == []


def prompts_in(browser: Any) -> list[str]:
    """Of the rows in sight, in order."""
    rows = browser.locator(".row")
    pairs = [
        (int(rows.nth(i).get_attribute("data-place")), rows.nth(i).locator("span").text_content())
        for i in range(rows.count())
    ]
    return [text for _, text in sorted(pairs)]


def test_answers_by_keyboard_alone(report: Path, opened: Callable[..., Opened], made: SimpleNamespace) -> None:
    """Oracle: the record's prompts in order, each with its reference, every method's answer and score, as text."""
    found = opened(report)
    page, browser = found.page, found.page.locator("#s1-a1")
    data = found.data("#s1-a1 .browser-data")
    browser.locator(".rows").focus()
    for key, place in [("j", 1), ("ArrowDown", 2), ("k", 1), ("End", 4), ("j", 4), ("Home", 0), ("ArrowUp", 0)]:
        page.keyboard.press(key)
        assert browser.locator(".prompt").text_content() == data["items"][place]["p"], key
        assert browser.locator("[aria-selected=true]").get_attribute("data-place") == str(place)
        cards = browser.locator(".card")
        texts = [cards.nth(i).locator(".said").text_content() for i in range(cards.count())]
        assert texts == [data["items"][place]["r"][0], *(answer[1] for answer in data["items"][place]["a"])]
    assert [browser.locator(".card b").nth(i).text_content() for i in range(5)] == ["reference", *made.METHODS]
    assert [browser.locator(".card .score").nth(i).text_content() for i in range(5)] == ["2", "▼ 0", "▼ 1", "2", "▲ 3"]
    page.keyboard.press("/")
    page.keyboard.type("second line")
    assert len(prompts_in(browser)) == 1
    assert browser.locator(".prompt mark").all_text_contents() == ["second", "line"]
    assert found.errors == []


def test_answers_are_filtered_searched_and_sorted(report: Path, opened: Callable[..., Opened]) -> None:
    """Oracle: Python's own filter and sort of the embedded answers: method i scores i + place, reference 2."""
    found = opened(report)
    browser = found.page.locator("#s1-a1")
    prompts = [item["p"] for item in found.data("#s1-a1 .browser-data")["items"]]

    def shown(**chosen: str) -> list[str]:
        for name, value in chosen.items():
            browser.locator(f".{name}").select_option(value)
        return prompts_in(browser)

    assert shown() == prompts
    assert shown(category="benign") == prompts[1::2]
    assert shown(category="", sort="high") == prompts[::-1]
    assert shown(sort="low") == prompts
    assert shown(sort="gain", method="3") == prompts[::-1]
    assert shown(sort="drop", against="2") == prompts  # the same difference everywhere: order of the data
    assert browser.locator(".card b").all_text_contents() == ["reference", "GRPO", "GRAO (paper)"]
    browser.locator(".query").fill("says onerror")
    assert prompts_in(browser) == [prompts[1]]
    browser.locator(".query").fill("nothing has this")
    assert "No prompt fits" in browser.locator(".detail").text_content()
    assert found.errors == []


def test_completions_over_time(report: Path, opened: Callable[..., Opened]) -> None:
    """Oracle: the last step first; one step back by key, the same prompt stays; its samples are that step's."""
    found = opened(report)
    page, browser = found.page, found.page.locator("#s2-a1")
    browser.locator(".rows").focus()
    page.keyboard.press("j")
    assert browser.locator(".step-name").text_content() == "20 (3 of 3)"
    page.keyboard.press("ArrowLeft")
    assert browser.locator(".step-name").text_content() == "10 (2 of 3)"
    assert browser.locator(".prompt").text_content() == "prompt 1"
    assert browser.locator(".card .said").nth(1).text_content() == "step 10"
    assert "advantage 0.5" in browser.locator(".card .score").nth(1).text_content()
    browser.locator(".step-range").fill("0")
    assert browser.locator(".card .said").nth(1).text_content() == "step 1"
    browser.locator(".sort").select_option("high")
    assert prompts_in(browser) == ["prompt 2", "prompt 1", "prompt 0"]  # what is unscored is in no mean
    assert browser.locator(".row small").nth(0).text_content() == "mean reward 2 · +1 on the reference"
    browser.locator(".row").nth(0).click()
    assert browser.locator(".card .score").nth(1).text_content() == "unscored · advantage 0.5"
    assert found.errors == []


def test_thousands_of_answers_are_drawn_as_they_come_into_sight(
    tmp_path: Path, opened: Callable[..., Opened], made: SimpleNamespace
) -> None:
    """Oracle: 1,500 prompts: a list as high as that, fewer than 50 rows in the page; the last one is reached."""
    record = made.comparison([f"text {i}" for i in range(1500)])
    path = write_report([made.write_json(tmp_path / "d", "comparison.json", record)], tmp_path / "r.html").path
    found = opened(path)
    browser = found.page.locator(".browser")
    assert browser.locator(".rows > div").evaluate("(node) => node.offsetHeight") == 1500 * 46
    assert 5 < browser.locator(".row").count() < 50
    browser.locator(".rows").focus()
    found.page.keyboard.press("End")
    assert browser.locator(".prompt").text_content() == "prompt 1499: text 1499"
    assert browser.locator("[aria-selected=true]").count() == 1
    assert 5 < browser.locator(".row").count() < 50
    assert found.errors == []


def test_texts_that_may_offend_are_blurred_until_asked(
    tmp_path: Path, opened: Callable[..., Opened], made: SimpleNamespace
) -> None:
    """Oracle: the computed style of an answer, before and after the button; a warning that says what to expect."""
    folder = made.write_json(tmp_path / "d", "comparison.json", made.comparison())
    found = opened(write_report([folder], tmp_path / "r.html", sensitive=True).path)
    style = "getComputedStyle(document.querySelector('.card .said')).filter"
    assert "Content warning" in found.page.locator(".warning").text_content()
    assert found.page.evaluate(style) == "blur(6px)"
    found.page.locator(".unblur").click()
    assert found.page.evaluate(style) == "none"
    plain = opened(write_report([folder], tmp_path / "p.html").path)
    assert plain.page.evaluate(style) == "none"
    assert plain.page.locator(".warning").count() == 0


def test_everything_is_reached_by_tab(report: Path, opened: Callable[..., Opened]) -> None:
    """Oracle: walking with Tab from the top meets the skip link, the theme, a chart, a download, a table's fold."""
    found = opened(report)
    met = []
    for _ in range(14):
        found.page.keyboard.press("Tab")
        met.append(
            found.page.evaluate("`${document.activeElement.tagName} ${document.activeElement.className}`.trim()")
        )
    assert met[0] == "A skip"
    for expected in ("BUTTON theme", "DIV chart only-wide", "BUTTON", "SUMMARY"):
        assert expected in met
    assert found.errors == []
