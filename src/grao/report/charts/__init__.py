"""Charts as SVG, one kind per file. A chart is a frozen dataclass of what it shows; `draw` returns the SVG.

The page reads where the data lies from `data-points`: x, y and the row of the table behind the figure.
"""

from grao.report.charts.areas import StackedAreas
from grao.report.charts.bars import Bar, Bars
from grao.report.charts.chart import Chart, legend_entry
from grao.report.charts.lines import Lines, Series
from grao.report.charts.quartiles import Quartiles, Spread
from grao.report.charts.scatter import Point, Scatter
from grao.report.charts.verdicts import Verdicts

__all__ = [
    "Bar",
    "Bars",
    "Chart",
    "Lines",
    "Point",
    "Quartiles",
    "Scatter",
    "Series",
    "Spread",
    "StackedAreas",
    "Verdicts",
    "legend_entry",
]
