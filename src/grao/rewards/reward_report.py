"""What scoring found: the raw values of each function, so that processes can be merged, and their statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

Values = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of the scored values; quartiles interpolate linearly between order statistics (numpy's default)."""

    count: int
    mean: float
    std: float
    """Of the population (divided by n), as everywhere in this library; TRL's log divides by n − 1."""
    minimum: float
    q25: float
    q50: float
    q75: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Statistics | None:
        """Return None if nothing was scored: there is no mean then, and 0 would be wrong."""
        scored = sorted(value for value in values if value is not None)
        if not scored:
            return None
        q25, q50, q75 = (_quantile(scored, q) for q in (0.25, 0.5, 0.75))
        return cls(len(scored), fmean(scored), pstdev(scored), scored[0], q25, q50, q75, scored[-1])


@dataclass(frozen=True, slots=True)
class FunctionReport:
    """The unweighted values of one reward function."""

    name: str
    samples: Values
    """Group by group; None = unscored."""
    references: Values = ()
    rejected: Values = ()
    errors: int = 0
    """Members unscored because the function failed on them; a None that it returned is not an error."""
    seconds: float = 0.0
    logged: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Name → every value given to `log_metric`."""

    @property
    def statistics(self) -> Statistics | None:
        """Of the samples."""
        return Statistics.of(self.samples)

    @property
    def unscored(self) -> int:
        """Number of members without a value, failures included."""
        return (*self.samples, *self.references, *self.rejected).count(None)

    def metrics(self) -> dict[str, float]:
        """Return the metrics under ``rewards/{name}/``; a mean of nothing is left out."""
        found = {"unscored": float(self.unscored), "errors": float(self.errors), "seconds": self.seconds}
        if (of := self.statistics) is not None:
            found |= {"mean": of.mean, "std": of.std, "q25": of.q25, "q50": of.q50, "q75": of.q75}
        if (references := Statistics.of(self.references)) is not None:
            found["reference_mean"] = references.mean
        return {f"rewards/{self.name}/{key}": value for key, value in found.items()}


@dataclass(frozen=True, slots=True)
class RewardReport:
    """One `FunctionReport` per reward function, in their order."""

    functions: tuple[FunctionReport, ...]

    def __getitem__(self, name: str) -> FunctionReport:
        return next(function for function in self.functions if function.name == name)

    def metrics(self) -> dict[str, float]:
        """Return all functions' metrics, under TRL's names where it has one, and the metrics they logged."""
        own = {key: value for function in self.functions for key, value in function.metrics().items()}
        return own | {name: fmean(values) for name, values in _logged(self.functions).items()}

    @staticmethod
    def merge(reports: Sequence[RewardReport]) -> RewardReport:
        """Merge reports of processes that scored at the same time: values joined, seconds of the slowest."""
        names = [tuple(f.name for f in report.functions) for report in reports]
        if not reports or any(found != names[0] for found in names):
            raise ValueError(f"cannot merge reports of different functions {names}. Give the same reward functions.")
        return RewardReport(tuple(map(_merge, zip(*(report.functions for report in reports), strict=True))))


def _merge(parts: tuple[FunctionReport, ...]) -> FunctionReport:
    return FunctionReport(
        name=parts[0].name,
        samples=tuple(value for part in parts for value in part.samples),
        references=tuple(value for part in parts for value in part.references),
        rejected=tuple(value for part in parts for value in part.rejected),
        errors=sum(part.errors for part in parts),
        seconds=max(part.seconds for part in parts),
        logged=_logged(parts),
    )


def _logged(parts: Sequence[FunctionReport]) -> dict[str, tuple[float, ...]]:
    names = dict.fromkeys(name for part in parts for name in part.logged)
    return {name: tuple(value for part in parts for value in part.logged.get(name, ())) for name in names}


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Return x₍ₖ₎ + (h − k)(x₍ₖ₊₁₎ − x₍ₖ₎) with h = q(n − 1), k = ⌊h⌋."""
    h = q * (len(ordered) - 1)
    k = int(h)
    upper = ordered[min(k + 1, len(ordered) - 1)]
    return ordered[k] + (h - k) * (upper - ordered[k])
