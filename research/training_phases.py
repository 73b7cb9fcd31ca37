"""Loss terms early and late in a run: the numbers behind "imitate, explore, transcend".

The paper says that imitation and regulariser make over 82 % of the loss's magnitude at first, and exploration 52 to
61 % later. Magnitude is |term| of a step's batch, its share |term| / Σ |term|; early is the first tenth of the steps,
late the last half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TERMS = ("exploration", "imitation", "regulariser")
Series = Mapping[str, Sequence[float | None]]


def phase_metrics(series: Series) -> dict[str, float]:
    """`{kind}_share_{term}_{phase}` for losses and gradients, as far as the series hold them; and what the reference
    met: its likelihood, and how often its advantage was negative. `rise` is late less early.
    """
    metrics: dict[str, float] = {}
    losses = {term: series[f"loss/{term}"] for term in TERMS if f"loss/{term}" in series}
    if len(losses) == len(TERMS):
        metrics |= _by_phase("loss_share", shares(losses))
    gradients = {term: series[f"grad/share/{term}"] for term in TERMS if f"grad/share/{term}" in series}
    if len(gradients) == len(TERMS):
        metrics |= _by_phase("grad_share", gradients)
    for name, shown in (
        ("advantage/reference_negative", "reference_negative"),
        ("logprobs/reference", "reference_logprob"),
    ):
        if known := _known(series.get(name, ())):
            metrics |= _phases(shown, known)
    return metrics


def shares(terms: Mapping[str, Sequence[float | None]]) -> dict[str, list[float | None]]:
    """Return |term| / Σ |term| by step, None where a term is missing or all are 0."""
    steps = list(zip(*terms.values(), strict=True))
    found: dict[str, list[float | None]] = {name: [] for name in terms}
    for values in steps:
        sizes = [abs(value) for value in values if value is not None]
        whole = sum(sizes)
        for name, size in zip(
            terms, sizes if len(sizes) == len(terms) and whole > 0 else [None] * len(terms), strict=True
        ):
            found[name].append(None if size is None else size / whole)
    return found


def early(values: Sequence[float]) -> Sequence[float]:
    """Return the first tenth, at least one value."""
    return values[: max(1, len(values) // 10)]


def late(values: Sequence[float]) -> Sequence[float]:
    """Return the last half, at least one value."""
    return values[-max(1, len(values) // 2) :]


def _by_phase(kind: str, terms: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, values in terms.items():
        if known := _known(values):
            metrics |= _phases(f"{kind}_{name}", known)
    return metrics


def _phases(name: str, values: Sequence[float]) -> dict[str, float]:
    first, last = _mean(early(values)), _mean(late(values))
    return {f"{name}_early": first, f"{name}_late": last, f"{name}_rise": last - first}


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
