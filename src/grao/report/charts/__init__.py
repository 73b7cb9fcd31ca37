"""Charts as SVG: one kind a file. A chart is a frozen dataclass of what it shows; `draw` puts it on paper.

Places of the data are listed for the page (`data-points`): x, y and the row of the table behind the figure.
"""

from grao.report.charts.bars import Bar, Bars
from grao.report.charts.chart import Chart
from grao.report.charts.legend import legend_entry
from grao.report.charts.lines import Lines, Series
from grao.report.charts.quartiles import Quartiles, Spread
from grao.report.charts.scatter import Point, Scatter
from grao.report.charts.shares import Shares, Verdicts
from grao.report.charts.signed import SignedAreas

__all__ = [
    "Bar",
    "Bars",
    "Chart",
    "Lines",
    "Point",
    "Quartiles",
    "Scatter",
    "Series",
    "Shares",
    "SignedAreas",
    "Spread",
    "Verdicts",
    "legend_entry",
]
