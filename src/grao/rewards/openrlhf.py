"""Reward functions written for OpenRLHF, as they are: `reward_func(queries, prompts, labels)`.

Source: OpenRLHF/OpenRLHF, `examples/python/reward_func.py` (the signature and the dict it returns) and
`SingleTurnAgentExecutor` in `openrlhf/utils/agent.py` (how it is called: by position, with lists of one).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from numbers import Real
from statistics import fmean
from typing import Any

from transformers import AutoTokenizer

from grao.groups import Prompt
from grao.rewards.adapted_function import LogExtra, LogMetric, call_each, check_concurrent, find_function, log_extras
from grao.rewards.completions import Completion, completion_text
from grao.rewards.reward_function import RewardCallable, default_name


@dataclass(frozen=True)
class OpenRLHFReward:
    """Calls a function as OpenRLHF does, in a thread: `function(queries, prompts, labels)`, prompt + completion first.

    Example::

        rewards:
          - path: openrlhf
            name: correct
            kwargs: {function: my_rewards.py:reward_func, label_column: answer}

    It may return a tensor, an array or a list of one number (or None: unscored) a query, or a dict with these as
    ``rewards``; ``scores`` and what ``extra_logs`` holds for each query go to the completions table, single numbers of
    ``extra_logs`` to the metrics. What it raises is an error of the reward: see `on_error`. An async function will do.

    OpenRLHF's queries still hold special tokens, such as the end of sequence; these do not.

    Raises:
        ValueError: it is no function, or cannot be called with queries, prompts and labels.
    """

    function: Any
    """Dotted path (`package.module:reward_func`), file (`folder/file.py:reward_func`), or the function itself."""
    label_column: str | None = None
    """OpenRLHF's `label_key`. Not set: every label is the empty text, as there."""
    batch_size: int | None = 1
    """Queries in one call. OpenRLHF gives one; null gives all, for a function that asks a server once for them."""
    concurrent: int | None = None
    """Calls beside each other; by default 1 of a plain function, 16 of an async one."""
    chat_template: str | None = None
    """Directory or hub id of the tokenizer whose chat template writes prompts that are conversations."""

    def __post_init__(self) -> None:
        check_concurrent(self.concurrent, "openrlhf")
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"openrlhf: batch_size is {self.batch_size}; give 1 or more, or null for all")
        try:
            inspect.signature(self._function).bind([], [], [])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"openrlhf: {default_name(self._function)!r} cannot be called with (queries, prompts, labels): {error}"
            ) from error

    @cached_property
    def _function(self) -> RewardCallable:
        return find_function(self.function, "openrlhf")

    @cached_property
    def _tokenizer(self) -> Any:
        if self.chat_template is None:
            raise ValueError(
                "openrlhf: reward functions of OpenRLHF read text, and the prompt is a conversation; set "
                "chat_template to the tokenizer that is to write it"
            )
        return AutoTokenizer.from_pretrained(self.chat_template)

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns without which there are no labels."""
        return () if self.label_column is None else (self.label_column,)

    async def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        log_extra: LogExtra | None = None,
        log_metric: LogMetric | None = None,
        **columns: Any,
    ) -> list[Any]:
        """Score each completion after its prompt."""
        calls = self._calls(prompts, completions, columns)
        bound = [partial(self._function, *call) for call in calls]
        results = await call_each(self._function, bound, self.concurrent)
        return self._read(calls, results, log_extra, log_metric)

    def _calls(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], columns: Mapping[str, Any]
    ) -> list[tuple[list[str], list[str], list[Any]]]:
        """(queries, prompts, labels) of each call."""
        texts = [self._prompt(prompt) for prompt in prompts]
        queries = [text + completion_text(said) for text, said in zip(texts, completions, strict=True)]
        labels = [""] * len(texts) if self.label_column is None else list(columns[self.label_column])
        size = self.batch_size or max(1, len(texts))
        cuts = [slice(begin, begin + size) for begin in range(0, len(texts), size)]
        return [(queries[cut], texts[cut], labels[cut]) for cut in cuts]

    def _prompt(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        return str(self._tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))

    def _read(
        self, calls: Sequence[Any], results: Sequence[Any], log_extra: LogExtra | None, log_metric: LogMetric | None
    ) -> list[Any]:
        """The rewards of all calls in one list; what else they said is handed on."""
        rewards: list[Any] = []
        extras: list[dict[str, Any]] = []
        metrics: dict[str, list[float]] = {}
        for (queries, _, _), result in zip(calls, results, strict=True):
            said = result if isinstance(result, Mapping) else {"rewards": result}
            rewards += self._rewards(said, len(queries))
            logs = {**({"scores": said["scores"]} if "scores" in said else {}), **(said.get("extra_logs") or {})}
            lists = {name: _list(value) for name, value in logs.items()}
            fitting = {name: values for name, values in lists.items() if len(values) == len(queries)}
            extras += [{name: values[i] for name, values in fitting.items()} for i in range(len(queries))]
            for name in lists.keys() - fitting.keys():
                metrics.setdefault(name, []).extend(float(v) for v in lists[name] if isinstance(v, Real))
        log_extras(log_extra, extras)
        for name, values in metrics.items():
            if log_metric is not None and values:
                log_metric(name, fmean(values))
        return rewards

    def _rewards(self, said: Mapping[str, Any], n: int) -> list[Any]:
        name = default_name(self._function)
        if said.get("rewards") is None:
            found = f"a dict of {', '.join(map(str, said))}" if said.keys() - {"rewards"} else "None"
            raise ValueError(
                f"openrlhf: {name!r} returned {found}; a tensor or list of rewards was needed, or a dict that holds "
                "one as 'rewards'"
            )
        values = _list(said["rewards"])
        if len(values) != n:
            raise ValueError(f"openrlhf: {name!r} returned {len(values)} rewards for {n} queries; one each is needed")
        return values


def _list(value: Any) -> list[Any]:
    """A tensor, array, list or single value as a list; [n, 1] as [n]."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(plain, list | tuple):
        return [plain]
    return [one[0] if isinstance(one, list | tuple) and len(one) == 1 else one for one in plain]
