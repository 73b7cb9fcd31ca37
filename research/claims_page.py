"""The page docs/claims.md: every claim with the verdict that the committed records give it.

    python -m research claims

Verdicts are computed from `research/records/*/cells.jsonl`. Nothing in the tables is written by hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.committed_record import CELLS, summary_from_cells

ROOT = Path(__file__).resolve().parents[1]
RECORDS, PAGE = ROOT / "research" / "records", ROOT / "docs" / "claims.md"
HEAD = """# Claims, and what the records say

Written by `python -m research claims` from the cells in [research/records](../research/records). A verdict is computed
from the 95 % interval of the effect over seeds, by the rule in [experiments.md](experiments.md#claims). "Does not
hold" is about these synthetic tasks and small models. No interval is adjusted for the number of claims. What it adds
up to: [findings.md](findings.md).
"""


def committed_records(folder: Path = RECORDS) -> list[Path]:
    """Return the directories of the records: the main one first, the others by name."""
    return sorted(
        (file.parent for file in folder.glob(f"*/{CELLS}")), key=lambda path: (path.name != "main", path.name)
    )


def claims_page(records: Sequence[Path]) -> str:
    """Return the page as Markdown: the count of verdicts, then one table per plan."""
    summaries = [summary_from_cells(record) for record in records]
    counts = Counter(claim["verdict"] for summary in summaries for claim in summary["claims"])
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("holds", "does not hold", "undecided here"))
    parts = [HEAD, f"{counts.total()} tests: {said}.\n"]
    for record, summary in zip(records, summaries, strict=True):
        if summary["claims"]:
            parts.append(_table(record.name, summary))
    return "\n".join(parts)


def _table(name: str, summary: Mapping[str, Any]) -> str:
    plan = summary["plan"]
    rows = "\n".join(_row(claim) for claim in summary["claims"])
    return (
        f"## {plan['title']}\n\n"
        f"Plan [`{name}`](../research/plans/{name}.yaml), {len(plan['seeds'])} seeds; "
        f"[record](../research/records/{name}).\n\n"
        "| verdict | claim | effect [95 %] | n | claimed in |\n|---|---|---|---|---|\n"
        f"{rows}\n"
    )


def _row(claim: Mapping[str, Any]) -> str:
    verdict = f"**{claim['verdict']}**" if claim["verdict"] != "undecided here" else claim["verdict"]
    return f"| {verdict} | {claim['claim']} | {_effect(claim)} | {claim['effect']['n']} | {claim['source']} |"


def _effect(claim: Mapping[str, Any]) -> str:
    effect = claim["effect"]
    if effect["value"] is None:
        return "no seed has it"
    interval = "" if effect["low"] is None else f" [{_number(effect['low'])}, {_number(effect['high'])}]"
    return f"{_number(effect['value'])}{interval} {claim['unit']}".strip()


def _number(value: float) -> str:
    """Return three digits, with a true minus sign."""
    return f"{value:.3g}".replace("-", "−")


def write_claims_page() -> Path:
    """Write the page and return its path."""
    PAGE.write_text(claims_page(committed_records()), encoding="utf-8")
    return PAGE
