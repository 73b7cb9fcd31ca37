"""Reward functions written for OpenRLHF: `reward_func(queries, prompts, labels)`.

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
from typing import Any, ClassVar

from transformers import AutoTokenizer

from grao.groups import Prompt
from grao.rewards.function_adapter import FunctionAdapter, log_extras
from grao.rewards.reward_function import Completion, LogExtra, LogMetric, completion_text


@dataclass(frozen=True)
class OpenRLHFReward(FunctionAdapter):
    """Calls `function(queries, prompts, labels)` as OpenRLHF does, in a thread; query = prompt + completion.

    Example::

        rewards:
          - path: openrlhf
            name: correct
            kwargs: {function: my_rewards.py:reward_func, label_column: answer}

    The function may be plain or async. It may return a tensor, an array or a list of one number (or None: unscored)
    per query, or a dict with these as ``rewards``. ``scores`` and per-query lists in ``extra_logs`` go to the
    completions table, single numbers in ``extra_logs`` to the metrics. If it raises, `on_error` decides.

    OpenRLHF's queries contain special tokens, such as the end of sequence; these do not.

    Raises:
        ValueError: It is not a function, or cannot be called with queries, prompts and labels.
    """

    label_column: str | None = None
    """OpenRLHF's `label_key`. Default: every label is the empty text, as in OpenRLHF."""
    batch_size: int | None = 1
    """Queries per call. OpenRLHF passes one; null passes all, for a function that sends one request for them."""
    chat_template: str | None = None
    """Directory or hub id of the tokenizer whose chat template formats prompts that are conversations."""

    library: ClassVar[str] = "openrlhf"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"openrlhf: batch_size is {self.batch_size}. Give 1 or more, or null for all.")
        try:
            inspect.signature(self.target).bind([], [], [])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.subject} cannot be called with (queries, prompts, labels): {error}") from error

    @cached_property
    def _tokenizer(self) -> Any:
        if self.chat_template is None:
            raise ValueError(
                "openrlhf: the prompt is a conversation, but OpenRLHF's reward functions read text. "
                "Set chat_template to a tokenizer with a chat template."
            )
        return AutoTokenizer.from_pretrained(self.chat_template)

    @property
    def required_columns(self) -> tuple[str, ...]:
        """The column of the labels, if one is named."""
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
        texts = [self._prompt(prompt) for prompt in prompts]
        queries = [text + completion_text(done) for text, done in zip(texts, completions, strict=True)]
        labels = [""] * len(texts) if self.label_column is None else list(columns[self.label_column])
        size = self.batch_size or max(1, len(texts))
        cuts = [slice(begin, begin + size) for begin in range(0, len(texts), size)]
        calls = [partial(self.target, queries[cut], texts[cut], labels[cut]) for cut in cuts]
        results = await self.call_each(calls)
        return self._read([len(queries[cut]) for cut in cuts], results, log_extra, log_metric)

    def _prompt(self, prompt: Prompt) -> str:
        if isinstance(prompt, str):
            return prompt
        return str(self._tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))

    def _read(
        self, sizes: Sequence[int], results: Sequence[Any], log_extra: LogExtra | None, log_metric: LogMetric | None
    ) -> list[Any]:
        """Return the rewards of all calls (of `sizes` queries) in one list, and log the rest."""
        rewards: list[Any] = []
        extras: list[dict[str, Any]] = []
        metrics: dict[str, list[float]] = {}
        for size, result in zip(sizes, results, strict=True):
            returned = result if isinstance(result, Mapping) else {"rewards": result}
            rewards += self._rewards(returned, size)
            logs = {name: returned[name] for name in ("scores",) if name in returned}
            lists = {name: _list(value) for name, value in {**logs, **(returned.get("extra_logs") or {})}.items()}
            per_query = {name: values for name, values in lists.items() if len(values) == size}
            extras += [{name: values[i] for name, values in per_query.items()} for i in range(size)]
            for name in lists.keys() - per_query.keys():
                metrics.setdefault(name, []).extend(float(v) for v in lists[name] if isinstance(v, Real))
        log_extras(log_extra, extras)
        for name, values in metrics.items():
            if log_metric is not None and values:
                log_metric(name, fmean(values))
        return rewards

    def _rewards(self, returned: Mapping[str, Any], size: int) -> list[Any]:
        if returned.get("rewards") is None:
            found = f"a dict of {', '.join(map(str, returned))}" if returned.keys() - {"rewards"} else "None"
            raise ValueError(
                f"{self.subject} returned {found}. Return a tensor or list, or a dict with one as 'rewards'."
            )
        values = _list(returned["rewards"])
        if len(values) != size:
            raise ValueError(f"{self.subject} returned {len(values)} rewards for {size} queries. Give one per query.")
        return values


def _list(value: Any) -> list[Any]:
    """Return a tensor, array, list or single value as a list; [n, 1] as [n]."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(plain, list | tuple):
        return [plain]
    return [one[0] if isinstance(one, list | tuple) and len(one) == 1 else one for one in plain]
