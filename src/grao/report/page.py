"""From directories to one HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from grao.records import read_run
from grao.report import comparison, evaluation
from grao.report.answers import AnswerSet, browser_data
from grao.report.charts import legend_entry
from grao.report.colours import Styles, style_sheet
from grao.report.embed import embedded_json
from grao.report.scales import figures
from grao.report.section import Figure, Section
from grao.report.standalone import PANEL_WIDTH, standalone
from grao.report.svg import asset, printable
from grao.report.training_run import compared_runs, training_section
from grao.version import __version__

PHONE_WIDTH = 350.0
"""Of a figure on a phone. Panels have PANEL_WIDTH and stretch a little."""
PAGE_WIDTH = 1040.0
"""Of a figure as wide as the page."""
UNFOLDED = 16
"""Tables with more rows are folded, unless they lead the section."""

Reader = tuple[str, str, Callable[..., Section]]
"""A file, what a directory with that file is, and the function that reads the directory as a section."""
READERS: tuple[Reader, ...] = (
    (comparison.FILE, "a comparison, as `grao demo` writes it", comparison.comparison_section),
    (evaluation.FILE, "an evaluation", evaluation.evaluation_section),
    ("config.yaml", "a training run", training_section),
)
"""The first whose file is there reads the directory."""


@dataclass(frozen=True, slots=True)
class Written:
    """The page that `write_report` wrote."""

    path: Path
    sections: tuple[Section, ...]

    @property
    def notes(self) -> list[str]:
        """Return the notes of the page: what is left out, thinned or missing."""
        return [note for section in self.sections for note in section.notes]


def write_report(
    directories: Sequence[str | Path],
    output: str | Path,
    *,
    title: str | None = None,
    sensitive: bool | None = None,
    figures_folder: str | Path | None = None,
) -> Written:
    """Write one self-contained page: no network, no other file. The same directories give the same bytes.

    Args:
        directories: Training runs, comparisons and evaluations, one section each. Several runs get one more section,
            with their curves side by side.
        output: The HTML file. Its folder is created.
        title: Title of the page. By default it is made from the sections.
        sensitive: Whether answers may offend and are blurred until the reader asks. None decides by the data.
        figures_folder: Where to write every figure as an SVG file as well.

    Raises:
        FileNotFoundError: If a directory does not exist.
        ValueError: If no directory is given, or one holds nothing that a report reads, or a file cannot be read.
    """
    return write_page(
        read_sections(directories, sensitive=sensitive), output, title=title, figures_folder=figures_folder
    )


def read_sections(
    directories: Sequence[str | Path], *, sensitive: bool | None = None, readers: Sequence[Reader] = READERS
) -> list[Section]:
    """Read directories as sections, and several training runs as one more. See `write_report`."""
    if not directories:
        raise ValueError("no directory was given: name a training run, a demo or an evaluation")
    found = [(Path(given), str(given), _reader(Path(given), readers)) for given in directories]
    sections = [read(path, given, sensitive=sensitive) for path, given, (*_, read) in found]
    return sections + _side_by_side([path for path, _, (name, *_) in found if name == "config.yaml"])


def write_page(
    sections: Sequence[Section],
    output: str | Path,
    *,
    title: str | None = None,
    figures_folder: str | Path | None = None,
) -> Written:
    """Write sections as one page. See `write_report`."""
    styles = Styles(name for section in sections for name in section.names)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(sections, styles, title or _title(sections)), encoding="utf-8")
    if figures_folder is not None:
        _write_figures(Path(figures_folder), sections, styles)
    return Written(output, tuple(sections))


def render(sections: Sequence[Section], styles: Styles, title: str) -> str:
    """Return the page as text."""
    environment = Environment(
        loader=PackageLoader("grao.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "figures_of": figures,
        "has_markup": lambda cell: hasattr(cell, "__html__"),
        "is_number": lambda cell: isinstance(cell, int | float),
        "unfolded": UNFOLDED,
    }
    environment.filters["printable"] = printable
    shown = [_shown(section, place, styles) for place, section in enumerate(sections)]
    return environment.get_template("page.html.j2").render(
        title=printable(title),
        version=__version__,
        style=Markup(style_sheet() + asset("charts.css") + asset("page.css")),
        script=Markup(asset("page.js")),
        script_hash=base64.b64encode(hashlib.sha256(asset("page.js").encode()).digest()).decode(),
        sections=shown,
    )


def _title(sections: Sequence[Section]) -> str:
    others = len(sections) - 1
    return f"{sections[0].title} and {others} more" if others else sections[0].title


def _reader(path: Path, readers: Sequence[Reader]) -> Reader:
    """Return the reader of a directory, by the files in it."""
    if not path.is_dir():
        there = "is a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {there}; name the directory of a run, a demo or an evaluation")
    for reader in readers:
        if (path / reader[0]).is_file():
            return reader
    inside = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
    known = "; ".join(f"{name} ({what})" for name, what, _ in readers)
    raise ValueError(f"{path} holds {inside}, which no report reads. A report reads directories with {known}")


def _side_by_side(runs: Sequence[Path]) -> list[Section]:
    """Return a section with the curves of several training runs on common axes."""
    if len(runs) < 2:
        return []
    names = [path.resolve().name for path in runs]
    if len(set(names)) < len(names):
        names = [str(path) for path in runs]
    found = compared_runs({name: read_run(path) for name, path in zip(names, runs, strict=True)})
    return [Section("Side by side", "Training runs", ", ".join(map(str, runs)), figures=found)] if found else []


# --- what the template is given --------------------------------------------------------------------------------------


def _shown(section: Section, place: int, styles: Styles) -> dict[str, Any]:
    key = f"s{place + 1}"
    count = len(section.figures)
    return {
        "id": key,
        "about": section,
        "figures": [_figure(figure, f"{key}-f{i + 1}", styles) for i, figure in enumerate(section.figures)],
        "more": [_figure(figure, f"{key}-f{count + i + 1}", styles) for i, figure in enumerate(section.more)],
        "tables": [{"id": f"{key}-t{i + 1}", "about": table} for i, table in enumerate(section.tables)],
        "answers": [_browser(answers, f"{key}-a{i + 1}", styles) for i, answers in enumerate(section.answers)],
        "provenance": _provenance(section.provenance),
    }


def _figure(figure: Figure, key: str, styles: Styles) -> dict[str, Any]:
    wide = PAGE_WIDTH if figure.wide and len(figure.panels) == 1 else None
    return {
        "id": key,
        "about": figure,
        "file": _file_name(figure.title),
        "legend": [(name, legend_entry(name, styles)) for name in figure.legend],
        "panels": [
            {
                "title": panel.title,
                "wide": panel.chart.draw(wide, styles) if wide else None,
                "narrow": panel.chart.draw(PHONE_WIDTH if wide else PANEL_WIDTH, styles),
            }
            for panel in figure.panels
        ],
        "data": embedded_json({"columns": figure.columns, "rows": figure.rows}),
        "standalone": standalone(figure, styles),
    }


def _browser(answers: AnswerSet, key: str, styles: Styles) -> dict[str, Any]:
    colours = [styles[name].colour if answers.coloured else "" for name in answers.names]
    return {
        "id": key,
        "about": answers,
        "data": embedded_json(browser_data(answers, colours)),
        "categories": sorted({one.category for one in answers.asked if one.category is not None}),
        "steps": sorted({one.step for one in answers.asked if one.step is not None}),
    }


def _provenance(found: Any) -> str | None:
    return None if found is None else yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=100)


def _file_name(title: str) -> str:
    """Return a title as letters, digits and dashes.

    >>> _file_name("Does it imitate, or explore?")
    'does-it-imitate-or-explore'
    """
    return re.sub(r"[^\w]+", "-", title.lower(), flags=re.ASCII).strip("-") or "figure"


def _write_figures(folder: Path, sections: Sequence[Section], styles: Styles) -> None:
    """Write each figure to a file named after section and figure, numbered where names are equal."""
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = {}
    for section in sections:
        for figure in (*section.figures, *section.more):
            name = f"{_file_name(section.title)}-{_file_name(figure.title)}"
            taken[name] = taken.get(name, 0) + 1
            numbered = name if taken[name] == 1 else f"{name}-{taken[name]}"
            folder.joinpath(f"{numbered}.svg").write_text(standalone(figure, styles), encoding="utf-8")
