"""The page: whole in one file, the same every time, and text from data stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from grao.report import write_report
from research.report import write_report as write_research_report

WriteRun = Callable[..., Path]


class Page(HTMLParser):
    """Every tag with its attributes, and the text of scripts and of the rest."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        (self.scripts if self._inside and self._inside[-1] == "script" else self.text).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def everything(tmp_path: Path, write_run: WriteRun, made: SimpleNamespace) -> list[Path]:
    """A run, a comparison with its runs and an experiment of research, with hostile texts wherever data gives text."""
    evil = made.HOSTILE
    steps = {1: [row for i, text in enumerate(evil) for row in made.group(i, text, text, [(text, 1.0)])]}
    storable = {1: [{k: v.replace("\ud800", "") if isinstance(v, str) else v for k, v in r.items()} for r in steps[1]]}
    run = write_run("run", made.metrics(25), storable, data={"source": evil[0]}, objective={"name": evil[1]})
    write_run("demo/grao", made.metrics(25))
    comparison = made.comparison(evil) | {"runs": {evil[1]: "grao"}}
    comparison["results"][1]["name"] = evil[0]
    comparison["prompts"][0]["category"] = evil[2]
    experiment = made.experiment()
    experiment["plan"] |= {"title": evil[0], "description": evil[3]}
    experiment["claims"][0] |= {"claim": evil[0], "verdict": evil[1], "rule": evil[2]}
    for aggregate in experiment["aggregates"]:
        aggregate["axes"]["regime"] += evil[1]
    return [
        run,
        made.write_json(tmp_path / "demo", "comparison.json", comparison),
        made.write_json(tmp_path / "x", "summary.json", experiment),
    ]


def test_text_from_data_never_becomes_markup(everything: list[Path], tmp_path: Path, made: SimpleNamespace) -> None:
    """Oracle: an HTML parser finds the same tags as on a page without hostile texts in it, none of them an image, no
    handler attribute, and the one script that the content security policy's hash names."""
    page = Page(write_research_report(everything, tmp_path / "report.html").path)
    assert "img" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    scripts = [script for script in page.scripts if "hacked" not in script or not script.startswith("{")]
    (code,) = (script for script in scripts if "use strict" in script)
    (policy,) = (a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() in (policy or "")
    assert "hacked" not in code
    assert made.HOSTILE[2] in "".join(page.text)  # template syntax is shown, not run
    assert "49" not in {text.strip() for text in page.text}


def test_embedded_data_holds_the_hostile_texts_whole(everything: list[Path], tmp_path: Path) -> None:
    """Oracle: the JSON of the comparison's browser, read back, holds each text as it was in the record."""
    page = Page(write_research_report(everything, tmp_path / "report.html").path)
    found = [json.loads(script) for script in page.scripts if script.startswith('{"names"')]
    prompts = [item["p"] for item in found[1]["items"]]
    record = json.loads((everything[1] / "comparison.json").read_text(encoding="utf-8"))
    assert prompts == [asked["prompt"] for asked in record["prompts"]]


def test_the_page_needs_nothing_else(everything: list[Path], tmp_path: Path) -> None:
    """Oracle: no attribute of any tag and no rule of the style sheet names a resource; the policy forbids the rest."""
    path = write_research_report(everything, tmp_path / "report.html").path
    page = Page(path)
    links = [a.get("href") or a.get("src") or "" for _, a in page.tags if "href" in a or "src" in a]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"url\(|@import", path.read_text(encoding="utf-8").split("</style>")[0])
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_the_same_directories_give_the_same_bytes(everything: list[Path], tmp_path: Path) -> None:
    """Oracle: an identity; also with another order of hashing."""
    first = write_research_report(everything, tmp_path / "a.html").path.read_bytes()
    code = "import sys; from research.report import write_report; write_report(sys.argv[2:], sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "b.html"), *map(str, everything)],
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
    )
    assert (tmp_path / "b.html").read_bytes() == first


def test_every_figure_has_its_parts(everything: list[Path], tmp_path: Path) -> None:
    """Oracle: counts: as many data tables, CSV and SVG buttons and drawings for download as figures; ids once each."""
    page = Page(write_research_report(everything, tmp_path / "report.html").path)
    figures = len(page.all("figure"))
    assert figures > 20
    classes = [a.get("class") for _, a in page.tags]
    saves = [a.get("data-save") for a in page.all("button")]
    assert classes.count("figure-data") == classes.count("standalone") == classes.count("data") == figures
    assert saves.count("svg") == saves.count("csv") == figures
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    pictures = [a for a in page.all("svg") if a.get("aria-hidden") != "true"]
    assert all(a.get("role") == "img" or a.get("xmlns") for a in pictures)


def test_figures_stand_alone(everything: list[Path], tmp_path: Path) -> None:
    """Oracle: an XML parser reads each; none uses a variable, which many programs do not know, or lists places."""
    written = write_research_report(everything, tmp_path / "report.html", figures_folder=tmp_path / "figures")
    files = list((tmp_path / "figures").glob("*.svg"))
    assert len(files) == sum(len(section.figures) + len(section.more) for section in written.sections)
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert ElementTree.fromstring(text).attrib["viewBox"]
        assert "var(" not in text
        assert "data-points" not in text


def test_two_runs_are_held_against_each_other(tmp_path: Path, write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: a third section whose lines are the two runs, by folder."""
    runs = [write_run(name, made.metrics(steps)) for name, steps in (("short", 5), ("long", 9))]
    written = write_report(runs, tmp_path / "r.html")
    assert [section.title for section in written.sections] == ["short", "long", "Side by side"]
    rows = [row for row in written.sections[2].figures[0].rows if row[0] == "reward"]
    assert [(row[1], row[2]) for row in rows] == [("short", s) for s in range(1, 6)] + [
        ("long", s) for s in range(1, 10)
    ]


def test_what_is_left_out_is_returned(tmp_path: Path, write_run: WriteRun) -> None:
    """Oracle: the notes of the page."""
    assert write_report([write_run("empty")], tmp_path / "r.html").notes == [
        "No metrics were logged: the run ended or was killed before its first log."
    ]


def test_directories_that_no_report_is_made_of(tmp_path: Path) -> None:
    """Oracle: what was found and what is read; nothing is written."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other holds notes\.txt.*config\.yaml \(a training run\)"):
        write_report([tmp_path / "other"], tmp_path / "r.html")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        write_report([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(ValueError, match="no directory was given"):
        write_report([], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_report_never_loads_a_model(tmp_path: Path, write_run: WriteRun, made: SimpleNamespace) -> None:
    """Oracle: the modules of a fresh interpreter that made a page."""
    run = write_run("run", made.metrics(3))
    code = (
        "import sys; from grao.report import write_report; write_report(sys.argv[1:2], sys.argv[2]); "
        "sys.exit(bool({'torch', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    arguments = [sys.executable, "-c", code, str(run), str(tmp_path / "r.html")]
    assert subprocess.run(arguments, capture_output=True).returncode == 0
