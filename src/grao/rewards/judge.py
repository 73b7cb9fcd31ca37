"""LLM judges as rewards: one that compares with the reference answer, one that scores an answer by itself.

Source of the pairwise judge: arXiv 2508.07750, where a judge compares a response (text 1) with the preferred one
(text 2) and answers ``1 > 2``, ``1 = 2`` or ``1 < 2``. Asking in both orders is our departure; `orders` takes it back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, ClassVar, Literal, TypeVar, get_args

from grao.groups import Prompt
from grao.rewards.completions import Completion, completion_text
from grao.rewards.endpoint.client import Asked, Endpoint, EndpointConfig
from grao.rewards.endpoint.usage import Usage
from grao.rewards.judging.canary import Canary, OnCanary
from grao.rewards.judging.question import Material, ask_messages, reminded
from grao.rewards.judging.quoting import Overlong
from grao.rewards.judging.rubric import Kind, Rubric, RubricSource, load_rubric
from grao.rewards.judging.verdict import SIGNS, read_score, read_verdict

logger = logging.getLogger(__name__)

T = TypeVar("T")

LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list[Any]], None]
"""Named numbers of a call, and named columns beside its completions, as TRL hands them to reward functions."""

Orders = Literal["both", "answer_first"]
"""Whether a pair is judged in both orders, or only with the answer as text 1, as in the paper."""

SHORTEST_LIMIT = 100
"""Characters: a limit below leaves nothing to judge."""

KNOWN_CASES_FIT = 1000
"""Characters: no known case of the canary is cut, whatever limit a user sets."""

IDENTICAL, INAPPLICABLE, OVERLONG, ALONE = "identical", "not applicable", "overlong", "no reference"


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of one answer."""

    value: float | None
    reason: str | None = None
    """Why there is no value, or why nobody was asked for it."""
    replies: tuple[float | None, ...] = ()
    """What the judge said in each order, about the texts as they were shown."""


@dataclass(frozen=True, kw_only=True)
class Judge(EndpointConfig):
    """Where a judge is asked (the fields of `EndpointConfig`), about what, and with which precautions."""

    rubric: RubricSource
    """A built-in (`helpfulness`, `harmlessness`; `…-absolute` for scores), a YAML file, or what would stand in one."""
    applies_to: Mapping[str, Any] = field(default_factory=dict)
    """Column → value, or list of values: other rows are unscored by this judge, and it is not asked about them."""
    overlong: Overlong = "cut_middle"
    """What becomes of texts over `max_characters`: `cut_middle` and `cut_end` leave that part out and tell the judge,
    `unscored` does not ask. Counted either way."""
    max_characters: int = 20_000
    """Of each text and of each turn of the context, as it stands in the prompt."""
    canary: OnCanary = "warn"
    """Ask first, once, whether the judge obeys the texts that it judges: `warn` logs it, `refuse` stops the run."""
    system_role: bool = True
    """False for models whose chat template has no system role: the instructions then open the user's message."""

    kind: ClassVar[Kind]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in self._choices().items():
            if getattr(self, name) not in choices:
                known = ", ".join(map(repr, choices))
                raise ValueError(f"{name} of a judge is one of {known}; found {getattr(self, name)!r}")
        if self.max_characters < SHORTEST_LIMIT:
            raise ValueError(f"max_characters is at least {SHORTEST_LIMIT}; found {self.max_characters}")
        if not isinstance(self.applies_to, Mapping):
            raise ValueError(f"applies_to is a mapping of columns to values; found {self.applies_to!r}")
        _ = self.criteria, self.endpoint  # what is wrong with them is told before a run starts

    def _choices(self) -> dict[str, tuple[Any, ...]]:
        return {"overlong": get_args(Overlong), "canary": get_args(OnCanary)}

    @cached_property
    def criteria(self) -> Rubric:
        """The rubric itself."""
        return load_rubric(self.rubric, self.kind)

    @cached_property
    def endpoint(self) -> Endpoint:
        """Where it is asked."""
        return Endpoint(self)

    @cached_property
    def _canary(self) -> Canary:
        return Canary(self._said_of, self.criteria, self.model, self.canary)

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns that say whether the judge applies."""
        return tuple(self.applies_to)

    def _applies(self, columns: Mapping[str, Sequence[Any]], index: int) -> bool:
        return all(
            columns[name][index] in (wanted if isinstance(wanted, list | tuple) else [wanted])
            for name, wanted in self.applies_to.items()
        )

    def _material(self, prompt: Prompt, texts: Sequence[str]) -> Material | Judged:
        material = Material.of(prompt, texts, self.max_characters, self.overlong)
        return Judged(None, OVERLONG) if material is None else material

    async def _score(
        self, rows: Sequence[Material | Judged], log_metric: LogMetric | None, log_extra: LogExtra | None
    ) -> list[float | None]:
        """Ask about every distinct material once; the rest is settled."""
        before = self.endpoint.usage
        distinct = list(dict.fromkeys(row for row in rows if isinstance(row, Material)))
        found = await self._canary.sing() if distinct else None
        judged = dict(zip(distinct, await _together(map(self._judge, distinct)), strict=True))
        results = [judged[row] if isinstance(row, Material) else row for row in rows]
        metrics = self._metrics(results, list(judged.items()), self.endpoint.usage - before)
        if found is not None and found.cases:
            metrics["canary_followed"] = found.followed / found.cases
        self._warn_of_unscored(results)
        if log_metric is not None:
            for name, value in metrics.items():
                log_metric(f"judge/{self.criteria.name}/{name}", value)
        if log_extra is not None:
            for name, values in self._extras(results).items():
                log_extra(f"judge/{self.criteria.name}/{name}", values)
        return [result.value for result in results]

    async def _judge(self, material: Material) -> Judged:
        raise NotImplementedError

    def _read(self, reply: str) -> float:
        raise NotImplementedError

    async def _ask(self, material: Material, order: Sequence[int]) -> Asked[float]:
        messages = ask_messages(self.criteria, material, order, system_role=self.system_role)
        return await self.endpoint.ask(messages, self._read, retry_messages=reminded(messages, self.criteria))

    async def _said_of(self, context: str, texts: Sequence[str], order: Sequence[int]) -> float | None:
        material = Material.of(context, texts, max(self.max_characters, KNOWN_CASES_FIT), "cut_end")
        assert material is not None
        return (await self._ask(material, order)).value

    def _metrics(
        self, results: Sequence[Judged], asked: Sequence[tuple[Material, Judged]], usage: Usage
    ) -> dict[str, float]:
        reasons = Counter(result.reason for result in results)
        answered = usage.answered + usage.cached
        found: dict[str, float] = {
            "questions": float(len(asked)),
            "identical": float(reasons[IDENTICAL]),
            "not_applicable": float(reasons[INAPPLICABLE]),
            "unscored": float(sum(_is_missing(result) for result in results)),
            "unparsable": float(sum(str(result.reason).startswith("unparsable") for result in results)),
            "overlong": float(reasons[OVERLONG]),
            "cut": float(sum(material.cut for material, _ in asked)),
        }
        if answered:
            found["cached_share"] = usage.cached / answered
        total = self.endpoint.usage.cost
        return found | usage.metrics() | ({} if total is None else {"cost_so_far": total})

    def _extras(self, results: Sequence[Judged]) -> dict[str, list[Any]]:
        return {"reason": [result.reason for result in results]}

    def _warn_of_unscored(self, results: Sequence[Judged]) -> None:
        missing = Counter(str(result.reason) for result in results if _is_missing(result))
        if missing:
            why = ", ".join(f"{reason} ({n})" for reason, n in missing.most_common())
            logger.warning(
                "judge %r (rubric %r) left %d of %d answers unscored: %s",
                *(self.model, self.criteria.name, missing.total(), len(results), why),
            )


@dataclass(frozen=True, kw_only=True)
class PairwiseJudge(Judge):
    """R(x, y) = +1 where the answer x beats the reference y, 0 where neither is better, −1 where it loses.

        R = v(x, y)                                   `orders: answer_first`, the paper's
        R = v(x, y) if v(x, y) = −v(y, x) else 0      `orders: both`

    v(a, b) is the verdict on a as text 1 and b as text 2. Where one of them is missing the answer is unscored. An
    answer that equals the reference, up to white space around it, is 0 by definition, and nobody is asked.

    Example::

        PairwiseJudge(model="deepseek-chat", base_url="https://api.deepseek.com", rubric="helpfulness",
                      cache="runs/judge.sqlite")
    """

    orders: Orders = "both"
    """`both` asks twice, since judges favour a position, and takes disagreement for a tie; the paper asks once."""

    kind: ClassVar[Kind] = "pairwise"
    compares_with_reference: ClassVar[bool] = True

    async def __call__(
        self,
        completions: Sequence[Completion],
        prompts: Sequence[Prompt],
        reference: Sequence[str | None],
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Compare each completion with its row's reference.

        Args:
            completions: text or conversations.
            prompts: the context of each.
            reference: what it is compared with.
            log_metric: told rates and costs, as `judge/{rubric}/…`.
            log_extra: told the verdict in each order and why there is none, one a completion.
            columns: those that `applies_to` names are read.
        """
        pairs = zip(prompts, map(completion_text, completions), reference, strict=True)
        rows = [self._row(*pair, applies=self._applies(columns, i)) for i, pair in enumerate(pairs)]
        return await self._score(rows, log_metric, log_extra)

    def _row(self, prompt: Prompt, answer: str, reference: str | None, *, applies: bool) -> Material | Judged:
        if not applies:
            return Judged(None, INAPPLICABLE)
        if reference is None:
            return Judged(None, ALONE)
        if answer.strip() == reference.strip():
            return Judged(0.0, IDENTICAL)
        return self._material(prompt, (answer, reference))

    async def _judge(self, material: Material) -> Judged:
        asked = await _together(self._ask(material, order) for order in self._shown)
        values = [None if of.value is None else sign * of.value for of, sign in zip(asked, (1, -1), strict=False)]
        replies = tuple(of.value for of in asked)
        if None in values:
            return Judged(None, next(of.reason for of in asked if of.value is None), replies)
        return Judged(values[0] if len(set(values)) == 1 else 0.0, None, replies)

    def _read(self, reply: str) -> float:
        return read_verdict(reply)

    @property
    def _shown(self) -> tuple[tuple[int, int], ...]:
        """The orders, of (answer, reference)."""
        return ((0, 1), (1, 0)) if self.orders == "both" else ((0, 1),)

    def _choices(self) -> dict[str, tuple[Any, ...]]:
        return {**super()._choices(), "orders": get_args(Orders)}

    def _metrics(
        self, results: Sequence[Judged], asked: Sequence[tuple[Material, Judged]], usage: Usage
    ) -> dict[str, float]:
        """Of the pairs judged in both orders: how often the verdicts disagree, and text 1's share of the wins."""
        both = [of.replies for _, of in asked if len(of.replies) == 2 and of.value is not None]
        found = super()._metrics(results, asked, usage)
        if both:
            found["position_inconsistency"] = fmean(first != -second for first, second in both)  # type: ignore[operator]
        if wins := [reply for pair in both for reply in pair if reply]:
            found["first_position_preference"] = fmean(reply == 1 for reply in wins)
        return found

    def _extras(self, results: Sequence[Judged]) -> dict[str, list[Any]]:
        names = ("answer_first", "reference_first")[: len(self._shown)]
        return super()._extras(results) | {
            name: [_sign(of.replies[place]) if of.replies else None for of in results]
            for place, name in enumerate(names)
        }


@dataclass(frozen=True, kw_only=True)
class AbsoluteJudge(Judge):
    """R(x) = the score that the judge gives the answer, on the rubric's scale; references are scored as well.

    Example::

        AbsoluteJudge(model="judge", base_url="http://localhost:8000/v1", rubric="helpfulness-absolute")
    """

    kind: ClassVar[Kind] = "absolute"

    async def __call__(
        self,
        completions: Sequence[Completion],
        prompts: Sequence[Prompt],
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Score each completion; arguments as for `PairwiseJudge`."""
        rows = [
            self._material(prompt, (completion_text(completion),))
            if self._applies(columns, i)
            else Judged(None, INAPPLICABLE)
            for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        return await self._score(rows, log_metric, log_extra)

    async def _judge(self, material: Material) -> Judged:
        asked = await self._ask(material, (0,))
        return Judged(asked.value, asked.reason, (asked.value,))

    def _read(self, reply: str) -> float:
        assert self.criteria.scale is not None
        return read_score(reply, self.criteria.scale)


def _sign(reply: float | None) -> str | None:
    return None if reply is None else SIGNS[int(reply)]


def _is_missing(judged: Judged) -> bool:
    return judged.value is None and judged.reason != INAPPLICABLE


async def _together(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order; when one fails the others are given up, so that nothing is asked for nothing."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
