"""A plan: a base configuration, axes, seeds, how settings are tuned, and the claims to test.

    name: main
    base:                       # sections of a run, and `task`; where things lie is decided by the runner
      task: {name: dialogue}
      objective: {name: grao}
      trainer: {learning_rate: 1.0e-3, max_steps: 60}
    axes:
      method:
        - {label: GRPO, overrides: {objective: {name: grpo}}, grid: {trainer.learning_rate: [3.0e-4, 1.0e-3]}}
        - {label: GRAO (paper), grid: {trainer.learning_rate: [1.0e-3, 3.0e-3]}}
      regime:
        - {label: never, overrides: {task.eps: 0.0}}
        - {label: often, overrides: {task.eps: 0.4}}
    seeds: [0, 1, 2]
    tuning: {per: [method, regime], seeds: [100, 101]}

Every combination of levels is run with every seed.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grao.configuration import build, load_yaml, with_values
from grao.spelling import did_you_mean
from research.cell import Curves
from research.claim import Claim

BUILT_IN = Path(__file__).parent / "plans"


@dataclass(frozen=True)
class Level:
    """A value of an axis: its label, and its changes to the base configuration."""

    label: str
    overrides: dict[str, Any] = field(default_factory=dict)
    """Dotted key → value; the levels of later axes are applied after those of earlier ones."""
    grid: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted key → values to try where the axis is tuned: every combination, in this order."""
    trained: bool = True
    """false: the base model itself, as it answers before any alignment."""
    value: float | None = None
    """The number that the level stands for, where the axis is one: figures are drawn over it."""
    steps: float = 1.0
    """Multiple of the plan's `trainer.max_steps`, for a method that is to spend as much as a dearer one."""

    def __post_init__(self) -> None:
        if not self.label.strip() or not self.slug:
            raise ValueError(f"the label {self.label!r} needs a letter or a digit: files are named after it")
        if not (self.steps > 0 and math.isfinite(self.steps)):
            raise ValueError(f"steps is {self.steps}; give a positive multiple of the plan's steps")
        if any(not values for values in self.grid.values()):
            raise ValueError(f"the grid of {self.label!r} has a key without values")
        if self.grid and not self.trained:
            raise ValueError(f"{self.label!r} is not trained: leave out its grid")

    @property
    def slug(self) -> str:
        """Return the label as part of a file name."""
        return re.sub(r"[^a-z0-9.]+", "-", self.label.lower()).strip("-.")

    def settings(self) -> list[dict[str, Any]]:
        """Return every combination of the grid's values; one empty setting without a grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True)
class Tuning:
    """How settings are chosen: equally many per method, on validation prompts with separate seeds."""

    per: list[str]
    """Axes each of whose combinations of levels is tuned by itself; the first of them has the grids. The other axes
    stay at their first level meanwhile."""
    seeds: list[int]
    """Seeds of data, base model and run, none of them a seed of the plan."""
    metric: str = "score"
    """The highest mean over seeds is chosen; of equal ones the first listed."""
    settings: int | None = None
    """Number of settings of each grid, from its start; null means all."""

    def __post_init__(self) -> None:
        if not self.per:
            raise ValueError("per is empty: name the axes to tune, the one with the grids first")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give at least one, each once")


@dataclass(frozen=True)
class Quick:
    """Changes of the short form (`--quick`)."""

    seeds: list[int] = field(default_factory=lambda: [0, 1])
    keep: dict[str, list[str]] = field(default_factory=dict)
    """Axis → labels to keep; all labels of other axes stay."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Of the base configuration."""
    tuning_seeds: list[int] = field(default_factory=lambda: [100])
    tuning_settings: int = 2


@dataclass(frozen=True)
class ExperimentPlan:
    """A plan. The module's docstring shows one."""

    name: str
    title: str
    description: str
    base: dict[str, Any]
    """Sections of a run as in a training configuration (`objective`, `rollout`, `monitor`, `trainer`, …), and `task`.
    The model, the data, the rewards, the seed and the directories are the runner's."""
    axes: dict[str, list[Level]]
    """By name. The first one is what is compared: its labels are the lines of every table."""
    seeds: list[int]
    """Seeds of data, base model and run. All methods of a seed share rows and base model."""
    tuning: Tuning | None = None
    curves: Curves = field(default_factory=Curves)
    bounds: bool = False
    """Compare gradients and advantages of GRAO cells with the paper's bounds; takes seconds per cell."""
    series: list[str] = field(default_factory=list)
    """Metrics of training to keep step by step, such as `kl`; those that a method does not log are left out."""
    answers_at: dict[str, str] = field(default_factory=dict)
    """Axis → label of the cells whose answers are kept in full, for the first seed; the first label by default."""
    claims: list[Claim] = field(default_factory=list)
    quick: Quick = field(default_factory=Quick)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name):
            raise ValueError(f"name is {self.name!r}; use small letters, digits and hyphens: files are named after it")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give at least one, each once")
        if not self.axes or not all(self.axes.values()):
            raise ValueError("axes needs at least one axis, and every axis a level: {method: [{label: GRPO}]}")
        for axis, levels in self.axes.items():
            slugs = [level.slug for level in levels]
            if len(set(slugs)) < len(slugs):
                raise ValueError(f"two levels of the axis {axis!r} have labels that name the same file: {slugs}")
        for claim in self.claims:
            for axes in claim.places():
                self._check_labels(axes, f"claim {claim.id!r}")
            self._check_axes(claim.each, f"claim {claim.id!r}, each")
            self._check_covered(claim)
        self._check_labels(self.answers_at, "answers_at")
        if self.tuning is not None:
            self._check_tuning(self.tuning)

    @property
    def compared(self) -> str:
        """Return the name of the first axis."""
        return next(iter(self.axes))

    def level(self, axis: str, label: str) -> Level:
        """Return the level with this label."""
        return next(level for level in self.axes[axis] if level.label == label)

    def shown(self, axes: Mapping[str, str]) -> dict[str, str | float]:
        """Return labels by axis as a report shows them: numbers where levels are numbers."""
        shown: dict[str, str | float] = {}
        for axis, label in axes.items():
            value = self.level(axis, label).value
            shown[axis] = label if value is None else value
        return shown

    def combinations(self, axes: Sequence[str] | None = None) -> list[dict[str, str]]:
        """Return every combination of labels of these axes (by default all), the first axis varying slowest."""
        names = list(self.axes) if axes is None else list(axes)
        labels = [[level.label for level in self.axes[name]] for name in names]
        return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*labels)]

    def tuned_settings(self, label: str) -> list[dict[str, Any]]:
        """Return the settings to tune for a level of the first tuned axis; none without a grid."""
        assert self.tuning is not None
        level = self.level(self.tuning.per[0], label)
        return level.settings()[: self.tuning.settings] if level.grid else []

    def _check_covered(self, claim: Claim) -> None:
        """Check that a claim names a level of every axis."""
        if claim.over is not None:
            self._check_axes([claim.over], f"claim {claim.id!r}, over")
        said = {*claim.of, *claim.at, *claim.each, claim.over}
        open_axes = [axis for axis, levels in self.axes.items() if axis not in said and len(levels) > 1]
        if open_axes:
            raise ValueError(
                f"claim {claim.id!r} does not say at which level of {', '.join(open_axes)} it is tested; put the axis "
                "into `of`, or into `each`"
            )

    def _check_axes(self, names: Sequence[str], where: str) -> None:
        for name in names:
            if name not in self.axes:
                raise ValueError(
                    f"{where} names the axis {name!r}{did_you_mean(name, self.axes)}; the plan has "
                    f"{', '.join(self.axes)}"
                )

    def _check_labels(self, labels: Mapping[str, str], where: str) -> None:
        self._check_axes(list(labels), where)
        for axis, label in labels.items():
            known = [level.label for level in self.axes[axis]]
            if label not in known:
                raise ValueError(f"{where} names {label!r}{did_you_mean(label, known)}; {axis} has {', '.join(known)}")

    def _check_tuning(self, tuning: Tuning) -> None:
        self._check_axes(tuning.per, "tuning.per")
        if both := sorted({*self.seeds} & {*tuning.seeds}):
            raise ValueError(f"seeds {both} are both tuned on and tested on; give tuning seeds of its own")
        levels = [level for level in self.axes[tuning.per[0]] if level.trained]
        counts = {level.label: len(self.tuned_settings(level.label)) for level in levels}
        if len(set(counts.values())) > 1 or 0 in counts.values():
            said = ", ".join(f"{label} {count}" for label, count in counts.items())
            raise ValueError(
                f"every method is tuned with the same number of settings; the grids have: {said}. Give each as many"
            )


def quick_form(plan: ExperimentPlan) -> ExperimentPlan:
    """Return the short form of a plan: fewer seeds, levels, steps and settings, to see that things work."""
    quick = plan.quick
    axes = {
        name: [level for level in levels if level.label in quick.keep.get(name, [level.label])]
        for name, levels in plan.axes.items()
    }
    left = {(axis, level.label) for axis, levels in axes.items() for level in levels}
    tuning = plan.tuning and replace(plan.tuning, seeds=quick.tuning_seeds, settings=quick.tuning_settings)
    return replace(
        plan,
        name=f"{plan.name}-quick",
        axes=axes,
        seeds=quick.seeds,
        base=with_values(plan.base, quick.overrides.items()),
        tuning=tuning,
        claims=[claim for claim in plan.claims if all(set(place.items()) <= left for place in claim.places())],
        answers_at={axis: label for axis, label in plan.answers_at.items() if (axis, label) in left},
    )


def load_plan(name_or_file: str) -> ExperimentPlan:
    """Return a built-in plan by name, or another plan by its file.

    Raises:
        ValueError: If there is no such plan (the message names the nearest one), or the file is not valid.
        FileNotFoundError: If there is no such file.
    """
    built_in = built_in_plans()
    if name_or_file in built_in:
        return build(ExperimentPlan, load_yaml(built_in[name_or_file]))
    if not name_or_file.endswith((".yaml", ".yml")):
        hint = did_you_mean(name_or_file, built_in)
        known = ", ".join(built_in)
        raise ValueError(
            f"there is no plan {name_or_file!r}{hint}; known: {known}. Name your own plan by its .yaml file"
        )
    return build(ExperimentPlan, load_yaml(name_or_file))


def built_in_plans() -> dict[str, Path]:
    """Return names and files of the built-in plans."""
    return {path.stem: path for path in sorted(BUILT_IN.glob("*.yaml"))}
