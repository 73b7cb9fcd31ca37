"""The tables of an experiment's record: the paper's claims with their verdicts, and what was tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grao.report.measured import Interval95, shown
from grao.report.scales import domain_of, figures, is_number
from grao.report.section import Cell, Table
from research.report.table_cells import IntervalCell, UnfoldingCell, VerdictCell


def claims_of(record: Mapping[str, Any]) -> Table | None:
    """Every claim with its verdict, its effect on the scale of its unit, and the rule; None without claims."""
    claims = record.get("claims") or []
    if not claims:
        return None
    effects = [Interval95.read(claim.get("effect")) for claim in claims]
    domains = {unit: _domain(claims, effects, unit) for unit in {claim.get("unit") for claim in claims}}
    rows = tuple(
        (
            UnfoldingCell(str(claim.get("claim", "")), str(claim.get("rule") or "")),
            VerdictCell(str(claim.get("verdict", "undecided here"))),
            IntervalCell(e.value, e.low, e.high, domains[claim.get("unit")]),
            _effect(e, str(claim.get("unit") or "")),
            e.n,
            str(claim.get("source") or ""),
            str(claim.get("plan") or ""),
        )
        for claim, e in zip(claims, effects, strict=True)
    )
    return Table(
        "Claims of the paper",
        "Verdicts are computed from the records, by the rule that each claim unfolds. Intervals of one unit share a "
        "scale; the stroke is 0.",
        ("claim", "verdict", "effect", "value [95 %]", "n", "source", "plan"),
        rows,
        leading=True,
    )


def _domain(claims: Sequence[Mapping[str, Any]], effects: Sequence[Interval95], unit: Any) -> tuple[float, float]:
    """The scale of all claims in one unit."""
    own = [e for claim, e in zip(claims, effects, strict=True) if claim.get("unit") == unit]
    bounds = [bound for e in own for bound in (e.low, e.high)]
    return domain_of([e.value for e in own], bounds, include=(0.0,), margin=0.08)


def _effect(e: Interval95, unit: str) -> str:
    bounds = f" [{figures(e.low)}, {figures(e.high)}]" if is_number(e.low) and is_number(e.high) else ""
    return f"{figures(e.value)}{bounds} {unit}".strip()


def tuning_of(record: Mapping[str, Any]) -> Table | None:
    """Every setting that was tried, and which was chosen; None where nothing was tuned."""
    rows: list[tuple[Cell, ...]] = []
    edges: list[str] = []
    for tuned in record.get("tuning") or []:
        axes = ", ".join(shown(value) for value in (tuned.get("axes") or {}).values())
        chosen = tuned.get("chosen") or {}
        edges += [f"{axes} ({key} = {shown(chosen[key])})" for key in _at_an_edge(tuned)]
        for tried in tuned.get("grid") or []:
            setting = tried.get("setting") or {}
            value = Interval95.read(tried.get("value")).value
            rows.append((axes, _setting(setting), value, "chosen" if setting == chosen else ""))
    if not rows:
        return None
    return Table(
        "Tuning",
        "What was tried for each method on validation prompts, with seeds of their own, and what was chosen.",
        ("method", "setting", "validation", ""),
        tuple(rows),
        (f"Chosen at an edge of its grid, so that more might be had beyond it: {'; '.join(edges)}.",) if edges else (),
    )


def _at_an_edge(tuned: Mapping[str, Any]) -> list[str]:
    """Keys whose chosen number is the least or the greatest of three or more that were tried."""
    found = []
    for key, chosen in (tuned.get("chosen") or {}).items():
        tried = {(one.get("setting") or {}).get(key) for one in tuned.get("grid") or []}
        numbers = sorted(value for value in tried if is_number(value))
        if len(numbers) >= 3 and chosen in (numbers[0], numbers[-1]):
            found.append(key)
    return found


def _setting(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {shown(value)}" for key, value in setting.items())
