"""LLM judges as rewards: one that compares with the reference answer, one that scores an answer by itself.

Source of the pairwise judge: arXiv 2508.07750, where a judge compares a response (text 1) with the preferred one
(text 2) and answers ``1 > 2``, ``1 = 2`` or ``1 < 2``. Asking in both orders is our departure; `orders` undoes it.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, ClassVar, Literal, TypeVar, get_args

from grao.groups import Prompt
from grao.rewards.endpoint.client import AskResult, Endpoint, EndpointConfig
from grao.rewards.endpoint.usage import Usage
from grao.rewards.judging.canary import Canary, OnCanary
from grao.rewards.judging.question import Material, ask_messages, reminded
from grao.rewards.judging.quoting import Overlong
from grao.rewards.judging.rubric import Kind, Rubric, RubricSource, load_rubric
from grao.rewards.judging.verdict import SIGNS, read_score, read_verdict
from grao.rewards.reward_function import Completion, LogExtra, LogMetric, completion_text

logger = logging.getLogger(__name__)

T = TypeVar("T")

Orders = Literal["both", "answer_first"]
"""Whether a pair is judged in both orders, or only with the answer as text 1, as in the paper."""

MIN_CHARACTERS = 100
"""A lower `max_characters` leaves nothing to judge."""

CANARY_CHARACTERS = 1000
"""No known case of the canary is cut, even with a lower `max_characters`."""

IDENTICAL, INAPPLICABLE, OVERLONG, NO_REFERENCE = "identical", "not applicable", "overlong", "no reference"


@dataclass(frozen=True, slots=True)
class Judged:
    """The result for one answer."""

    value: float | None
    reason: str | None = None
    """Why there is no value, or why the judge was not asked."""
    replies: tuple[float | None, ...] = ()
    """The judge's verdict in each order, about the texts as they were shown."""

    @property
    def unscored(self) -> bool:
        """Whether a value is missing although the judge applies."""
        return self.value is None and self.reason != INAPPLICABLE


@dataclass(frozen=True, kw_only=True)
class Judge(EndpointConfig):
    """Settings of a judge, beside those of its endpoint (`EndpointConfig`)."""

    rubric: RubricSource
    """A built-in (`helpfulness`, `harmlessness`; `…-absolute` for scores), a YAML file, or the content of one."""
    applies_to: Mapping[str, Any] = field(default_factory=dict)
    """Column → value, or list of values: this judge leaves other rows unscored, without a question."""
    overlong: Overlong = "cut_middle"
    """For texts over `max_characters`: `cut_middle` and `cut_end` leave that part out and say so to the judge,
    `unscored` does not ask. Counted either way."""
    max_characters: int = 20_000
    """Limit for each text and each turn of the context, as written into the prompt."""
    canary: OnCanary = "warn"
    """Test once, before the first question, whether the judge obeys the texts that it judges: `warn` logs the result,
    `refuse` stops the run if it does."""
    system_role: bool = True
    """False for models whose chat template has no system role: the instructions then open the user's message."""

    kind: ClassVar[Kind]
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"overlong": get_args(Overlong), "canary": get_args(OnCanary)}

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, choices in self.choices.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}. Choose one of {', '.join(map(repr, choices))}.")
        if self.max_characters < MIN_CHARACTERS:
            raise ValueError(f"max_characters is {self.max_characters}. Give at least {MIN_CHARACTERS}.")
        if not isinstance(self.applies_to, Mapping):
            raise ValueError(f"applies_to is {self.applies_to!r}. Give a mapping of columns to values.")
        _ = self.loaded_rubric, self.endpoint  # so that errors in them are raised before a run starts

    @cached_property
    def loaded_rubric(self) -> Rubric:
        """The rubric that `rubric` names."""
        return load_rubric(self.rubric, self.kind)

    @cached_property
    def endpoint(self) -> Endpoint:
        """The endpoint that is asked."""
        return Endpoint(self)

    @cached_property
    def _canary(self) -> Canary:
        return Canary(self._ask_canary, self.loaded_rubric, self.model, self.canary)

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns that decide whether the judge applies."""
        return tuple(self.applies_to)

    def _applies(self, columns: Mapping[str, Sequence[Any]], index: int) -> bool:
        return all(
            columns[name][index] in (wanted if isinstance(wanted, list | tuple) else [wanted])
            for name, wanted in self.applies_to.items()
        )

    def _material(self, prompt: Prompt, texts: Sequence[str]) -> Material | Judged:
        return Material.of(prompt, texts, self.max_characters, self.overlong) or Judged(None, OVERLONG)

    async def _score(
        self, rows: Sequence[Material | Judged], log_metric: LogMetric | None, log_extra: LogExtra | None
    ) -> list[float | None]:
        """Ask once about each distinct material; the other rows are settled."""
        before = self.endpoint.usage
        distinct = list(dict.fromkeys(row for row in rows if isinstance(row, Material)))
        canary = await self._canary.run() if distinct else None
        judged = dict(zip(distinct, await _gather(map(self._judge, distinct)), strict=True))
        results = [judged[row] if isinstance(row, Material) else row for row in rows]
        metrics = self._metrics(results, judged, self.endpoint.usage - before)
        if canary is not None and canary.cases:
            metrics["canary_followed"] = canary.followed / canary.cases
        if missing := Counter(str(result.reason) for result in results if result.unscored):
            reasons = ", ".join(f"{reason} ({n})" for reason, n in missing.most_common())
            logger.warning(
                "judge %r (rubric %r) left %d of %d answers unscored: %s",
                *(self.model, self.loaded_rubric.name, missing.total(), len(results), reasons),
            )
        prefix = f"judge/{self.loaded_rubric.name}/"
        if log_metric is not None:
            for name, value in metrics.items():
                log_metric(prefix + name, value)
        if log_extra is not None:
            for name, values in self._extras(results).items():
                log_extra(prefix + name, values)
        return [result.value for result in results]

    @abstractmethod
    async def _judge(self, material: Material) -> Judged: ...

    @abstractmethod
    def _read(self, reply: str) -> float: ...

    async def _ask(self, material: Material, order: Sequence[int]) -> AskResult[float]:
        messages = ask_messages(self.loaded_rubric, material, order, system_role=self.system_role)
        return await self.endpoint.ask(messages, self._read, retry_messages=reminded(messages, self.loaded_rubric))

    async def _ask_canary(self, context: str, texts: Sequence[str], order: Sequence[int]) -> float | None:
        material = Material.of(context, texts, max(self.max_characters, CANARY_CHARACTERS), "cut_end")
        assert material is not None
        return (await self._ask(material, order)).value

    def _metrics(self, results: Sequence[Judged], judged: Mapping[Material, Judged], usage: Usage) -> dict[str, float]:
        reasons = Counter(result.reason for result in results)
        found: dict[str, float] = {
            "questions": float(len(judged)),
            "identical": float(reasons[IDENTICAL]),
            "not_applicable": float(reasons[INAPPLICABLE]),
            "unscored": float(sum(result.unscored for result in results)),
            "unparsable": float(sum(str(result.reason).startswith("unparsable") for result in results)),
            "overlong": float(reasons[OVERLONG]),
            "cut": float(sum(material.cut for material in judged)),
        }
        if answered := usage.answered + usage.cached:
            found["cached_share"] = usage.cached / answered
        total = self.endpoint.usage.cost
        return found | usage.metrics() | ({} if total is None else {"cost_so_far": total})

    def _extras(self, results: Sequence[Judged]) -> dict[str, list[Any]]:
        return {"reason": [result.reason for result in results]}


@dataclass(frozen=True, kw_only=True)
class PairwiseJudge(Judge):
    """R(x, y) = +1 if the answer x beats the reference y, 0 if neither is better, −1 if it loses.

        R = v(x, y)                                   `orders: answer_first`, the paper's
        R = v(x, y) if v(x, y) = −v(y, x) else 0      `orders: both`

    v(a, b) is the verdict on a as text 1 and b as text 2. If one of them is missing, the answer is unscored. An answer
    that equals the reference, up to surrounding white space, is 0 by definition, without a question.

    Example::

        PairwiseJudge(model="deepseek-chat", base_url="https://api.deepseek.com", rubric="helpfulness",
                      cache="runs/judge.sqlite")
    """

    orders: Orders = "both"
    """`both` asks twice, because judges favour a position, and counts disagreement as a tie; the paper asks once."""

    kind: ClassVar[Kind] = "pairwise"
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {**Judge.choices, "orders": get_args(Orders)}
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
            completions: Text or conversations.
            prompts: The context of each.
            reference: The reference answer of each.
            log_metric: Called with rates and costs, as `judge/{rubric}/…`.
            log_extra: Called with the verdict in each order and the reason for a missing one, per completion.
            columns: Those that `applies_to` names are read.
        """
        rows: list[Material | Judged] = []
        triples = zip(prompts, map(completion_text, completions), reference, strict=True)
        for i, (prompt, answer, other) in enumerate(triples):
            if not self._applies(columns, i):
                rows.append(Judged(None, INAPPLICABLE))
            elif other is None:
                rows.append(Judged(None, NO_REFERENCE))
            elif answer.strip() == other.strip():
                rows.append(Judged(0.0, IDENTICAL))
            else:
                rows.append(self._material(prompt, (answer, other)))
        return await self._score(rows, log_metric, log_extra)

    async def _judge(self, material: Material) -> Judged:
        asked = await _gather(self._ask(material, order) for order in self._shown)
        values = [None if of.value is None else sign * of.value for of, sign in zip(asked, (1, -1), strict=False)]
        replies = tuple(of.value for of in asked)
        if None in values:
            return Judged(None, next(of.reason for of in asked if of.value is None), replies)
        return Judged(values[0] if len(set(values)) == 1 else 0.0, None, replies)

    def _read(self, reply: str) -> float:
        return read_verdict(reply)

    @property
    def _shown(self) -> tuple[tuple[int, int], ...]:
        """The orders of (answer, reference)."""
        return ((0, 1), (1, 0)) if self.orders == "both" else ((0, 1),)

    def _metrics(self, results: Sequence[Judged], judged: Mapping[Material, Judged], usage: Usage) -> dict[str, float]:
        """Add, of the pairs judged in both orders, how often the verdicts disagree, and text 1's share of the wins."""
        both = [of.replies for of in judged.values() if len(of.replies) == 2 and of.value is not None]
        found = super()._metrics(results, judged, usage)
        if both:
            found["position_inconsistency"] = fmean(first != -second for first, second in both)  # type: ignore[operator]
        if wins := [reply for pair in both for reply in pair if reply]:
            found["first_position_preference"] = fmean(reply == 1 for reply in wins)
        return found

    def _extras(self, results: Sequence[Judged]) -> dict[str, list[Any]]:
        def sign(reply: float | None) -> str | None:
            return None if reply is None else SIGNS[int(reply)]

        return super()._extras(results) | {
            name: [sign(of.replies[place]) if of.replies else None for of in results]
            for place, name in enumerate(("answer_first", "reference_first")[: len(self._shown)])
        }


@dataclass(frozen=True, kw_only=True)
class AbsoluteJudge(Judge):
    """R(x) = the judge's score of the answer, on the rubric's scale; references are scored as well.

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
        pairs = zip(prompts, map(completion_text, completions), strict=True)
        rows = [
            self._material(prompt, (text,)) if self._applies(columns, i) else Judged(None, INAPPLICABLE)
            for i, (prompt, text) in enumerate(pairs)
        ]
        return await self._score(rows, log_metric, log_extra)

    async def _judge(self, material: Material) -> Judged:
        asked = await self._ask(material, (0,))
        return Judged(asked.value, asked.reason, (asked.value,))

    def _read(self, reply: str) -> float:
        assert self.loaded_rubric.scale is not None
        return read_score(reply, self.loaded_rubric.scale)


async def _gather(coroutines: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return all results, in order; if one fails, cancel the others, so that their questions are not paid for."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
