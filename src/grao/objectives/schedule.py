"""A weight that changes over the steps of a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from grao.objectives.objective import Progress

Shape = Literal["linear", "cosine", "step"]


@dataclass(frozen=True)
class Schedule:
    """A weight as a function of the step within the stage.

        f = clip((step − from_step) / over, 0, 1)
        linear:  start + (end − start) f
        cosine:  end + (start − end) (1 + cos πf)/2
        step:    start before `from_step`, end from then on

    It reads `Progress` and keeps no state, so a resumed run continues with the same numbers.

    Example::

        Schedule("cosine", start=0.9, end=0.05, over=200)
    """

    schedule: Shape
    """`linear`, `cosine` or `step`."""
    start: float
    """Weight up to `from_step`."""
    end: float
    """Weight once the change is complete."""
    from_step: int = 0
    """Step of the stage, from 0, at which the change starts."""
    over: int | None = None
    """Number of steps the change takes; null = the rest of the stage. Not for `step`."""

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Shape):
            raise ValueError(f"schedule is {self.schedule!r}; choose one of {', '.join(get_args(Shape))}")
        for name in ("start", "end"):
            check_weight(name, getattr(self, name))
        if self.from_step < 0:
            raise ValueError(f"from_step is {self.from_step}; give a step of the stage, 0 or more")
        if self.over is not None and (self.over < 1 or self.schedule == "step"):
            raise ValueError(f"over is {self.over}; give 1 step or more, and leave it out for schedule: step")

    def at(self, progress: Progress) -> float:
        """Return the weight of the update that follows `progress.step` updates of the stage."""
        done = progress.step - self.from_step
        if done < 0:
            return self.start
        over = progress.steps - self.from_step if self.over is None else self.over
        if self.schedule == "step" or done >= over:
            return self.end
        if self.schedule == "linear":
            return self.start + (self.end - self.start) * (done / over)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done / over)) / 2


Weight = float | Schedule
"""A constant weight, or one that follows a schedule."""


def check_weight(name: str, weight: float) -> None:
    """Raise a `ValueError` unless the weight is a finite number of 0 or more."""
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
        raise ValueError(f"{name} is {weight!r}; give a finite number, 0 or more (a negative weight maximises a loss)")
