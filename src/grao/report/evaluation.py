"""An evaluation (`grao evaluate`) as a section: several models on the same prompts, and every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from grao.report import figures as fig
from grao.report.answers import Answer, AnswerSet, Asked, limited
from grao.report.completion_tables import conversation, may_offend
from grao.report.measured import Interval95, Measured, Metric, read_counts
from grao.report.record_file import read_json
from grao.report.scales import is_number
from grao.report.section import Figure, Section, present

FILE = "evaluation.json"
REWARD = Metric("reward", "Reward", "mean reward", "higher")
KL = Metric("kl", "KL to the base", "nats per answer", "lower")
METRICS = (
    Metric("ras", "RAS: beats the reference", "share of prompts", "higher"),
    Metric("nag", "NAG: better minus worse than the base", "net share of prompts", "higher"),
    Metric("nag_win", "NAG, wins: better than the base", "share of prompts", "higher"),
    Metric("gain", "Gain over the base", "mean reward", "higher"),
    KL,
    Metric("tokens", "Length", "tokens per answer"),
    Metric("limited", "Cut at the length limit", "share of answers"),
    Metric("refusals", "Refusals", "share of answers"),
)


def evaluation_section(path: Path, given: str, *, sensitive: bool | None) -> Section:
    """Read the models of an evaluation, and their answers if the files are still there."""
    record = read_json(path / FILE)
    models = record.get("models") or {}
    measured = [_measured(str(name), found.get("summary") or {}) for name, found in models.items()]
    config = record.get("config") or {}
    offends = may_offend(config) if sensitive is None else sensitive
    answers, notes = _answers(path, list(models), sensitive=offends)
    unscored = [
        f"{name}: {count} answers are unscored and in no mean."
        for name, found in models.items()
        if is_number(count := ((found.get("summary") or {}).get("all") or {}).get("unscored")) and count > 0
    ]
    return Section(
        title=path.resolve().name,
        kind="Evaluation",
        source=given,
        lead="All models answer the same held-out prompts with the same seeds, scored by the same rewards.",
        facts=_facts(record, config, measured),
        figures=fig.those(
            fig.bars(
                "Reward",
                "Mean over held-out prompts with 95 % intervals over prompts.",
                {"reward": [(one.name, one.get("reward")) for one in measured]},
                REWARD.axis,
                wide=True,
            ),
            fig.by_category(measured, REWARD),
            fig.frontier(measured, KL, REWARD),
            _differences(record),
            fig.verdicts(measured),
            fig.quartiles(measured, "reward"),
            fig.metric_bars("Wins, distance, length", "95 % intervals over prompts.", measured, METRICS),
        ),
        answers=() if answers is None else (answers,),
        provenance={key: record[key] for key in ("config", "versions", "rows") if key in record},
        notes=present((*unscored, *notes)),
    )


def _measured(name: str, summary: Mapping[str, Any]) -> Measured:
    whole = summary.get("all") or {}
    reward = whole.get("reward") or {}
    quartiles, mean = reward.get("quartiles") or (), Interval95.read(reward.get("mean")).value
    rewards = {
        "mean": mean,
        "variance": reward.get("variance"),
        **dict(zip(("q25", "q50", "q75"), quartiles, strict=False)),
    }
    return Measured(
        name=name,
        metrics=_metrics(whole),
        by_category={category: _metrics(found) for category, found in (summary.get("by_category") or {}).items()},
        rewards={key: value for key, value in rewards.items() if is_number(value)},
        verdicts=read_counts(whole.get("counts") or {}),
    )


def _metrics(found: Mapping[str, Any]) -> dict[str, Interval95]:
    lengths = found.get("lengths") or {}
    raw = {
        "reward": (found.get("reward") or {}).get("mean"),
        **{metric.key: found.get(metric.key) for metric in METRICS},
        "tokens": (lengths.get("tokens") or {}).get("mean"),
        "limited": lengths.get("limited"),
    }
    read = {key: Interval95.read(value) for key, value in raw.items()}
    return {key: value for key, value in read.items() if is_number(value.value)}


def _differences(record: Mapping[str, Any]) -> Figure | None:
    groups: dict[str, list[tuple[str, Interval95]]] = {}
    for row in record.get("differences") or []:
        groups.setdefault(str(row.get("model")), []).append(
            (str(row.get("against")), Interval95.read(row.get("reward")))
        )
    caption = (
        "Reward of one model minus that of another, on the same prompts; 95 % each, not adjusted for their number."
    )
    return fig.differences("Differences between models", caption, groups, REWARD.unit)


def _facts(
    record: Mapping[str, Any], config: Mapping[str, Any], measured: Sequence[Measured]
) -> tuple[tuple[str, str], ...]:
    data, sampling = config.get("data") or {}, config.get("sampling") or {}
    rows = record.get("rows") or {}
    return (
        ("models", str(len(measured))),
        ("data", str(data.get("source", "?"))),
        ("prompts", str(rows.get("compared", "?"))),
        ("answers per prompt", str(sampling.get("num_samples", "?"))),
        ("temperature", str(sampling.get("temperature", "?"))),
    )


def _answers(path: Path, names: Sequence[str], *, sensitive: bool) -> tuple[AnswerSet | None, list[str]]:
    """Return prompts by row with the answers of every model whose file is there, and notes."""
    rows: dict[int, list[tuple[int, Mapping[str, Any]]]] = {}
    notes = []
    for who, name in enumerate(names):
        file = path / "items" / f"{name}.parquet"
        try:
            items = pq.read_table(file).to_pylist()
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            notes.append(f"The answers of {name} are left out: {error}")
            continue
        for item in items:
            rows.setdefault(item["row"], []).append((who, item))
    if not rows:
        return None, notes
    kept, said = limited("Answers", [_asked(items) for _, items in sorted(rows.items())])
    caption = "Every prompt with its reference and each model's answer."
    answers = AnswerSet("Answers", caption, tuple(names), kept, said, score_name="reward", sensitive=sensitive)
    return answers, notes


def _asked(items: Sequence[tuple[int, Mapping[str, Any]]]) -> Asked:
    first = items[0][1]
    return Asked(
        prompt=conversation(first.get("prompt")),
        category=first.get("category"),
        reference=None if first.get("reference") is None else conversation(first["reference"]),
        reference_score=first.get("reference_reward"),
        answers=tuple(
            Answer(
                who,
                conversation(item.get("answer")),
                item.get("reward"),
                note="cut at the length limit" if item.get("finish") == "length" else "",
            )
            for who, item in items
        ),
    )
