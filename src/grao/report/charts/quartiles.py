"""Mean, standard deviation and quartiles, one row per method."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from grao.report.charts.chart import Chart, marker, name_column, places, row_name, rule, x_axis
from grao.report.colours import Styles
from grao.report.scales import Linear, extent, figures
from grao.report.svg import drawing, element

ROW = 25.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Statistics of a method's scores."""

    name: str
    mean: float
    deviation: float
    q25: float
    q50: float
    q75: float
    row: int


@dataclass(frozen=True, slots=True)
class Quartiles(Chart):
    """A box from quartile to quartile, a stroke at the median, a point at the mean ± deviation."""

    title: str
    unit: str
    spreads: tuple[Spread, ...]
    domain: tuple[float, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the rows."""
        return tuple(spread.name for spread in self.spreads)

    def draw(self, width: float, styles: Styles) -> Markup:
        """See `Chart.draw`."""
        left = name_column((s.name for s in self.spreads), width)
        x = Linear(*(self.domain or self.own_domain()), left, width - 14)
        bottom = 6 + ROW * len(self.spreads)
        body = [x_axis(x, bottom, self.unit, top=4.0)]
        found = []
        for place, s in enumerate(self.spreads):
            y, style = 6 + ROW * (place + 0.5), styles[s.name]
            body += [
                row_name(s.name, left - 8, y),
                rule(x(s.mean - s.deviation), y, x(s.mean + s.deviation), y, "whisker", style.paint),
                element(
                    "rect",
                    x=x(s.q25),
                    y=y - 7,
                    width=max(x(s.q75) - x(s.q25), 1.5),
                    height=14.0,
                    class_="box",
                    style=f"fill:{style.paint};stroke:{style.paint}",
                ),
                rule(x(s.q50), y - 9, x(s.q50), y + 9, "median", style.paint),
                marker(style, x(s.mean), y),
            ]
            found.append((x(s.mean), y, s.row))
        return drawing(width, bottom + 38, self.title, self.describe(), *body, places(found, by="y"))

    def own_domain(self) -> tuple[float, float]:
        """Return the domain of boxes and whiskers."""
        ends = ((s.mean - s.deviation, s.mean + s.deviation, s.q25, s.q75) for s in self.spreads)
        return extent((v for row in ends for v in row), margin=0.03)

    def describe(self) -> str:
        """Return mean and quartiles of each row, in words."""
        told = (
            f"{s.name}: mean {figures(s.mean)}, quartiles {figures(s.q25)} to {figures(s.q75)}" for s in self.spreads
        )
        return "; ".join(told) or "no data"
