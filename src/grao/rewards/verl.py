"""Reward functions written for verl: `compute_score(data_source, solution_str, ground_truth, extra_info)`.

Source: verl-project/verl, `docs/preparation/reward_function.rst` (the signature) and
`verl/experimental/reward_loop/reward_manager/naive.py` (how it is called, and that a dict holds the reward as
``score``); the batched form is that of `verl/workers/reward_manager/batch.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from grao.rewards.function_adapter import FunctionAdapter, log_extras
from grao.rewards.reward_function import Completion, LogExtra, completion_text, keyword_parameters

ONE = ("data_source", "solution_str", "ground_truth", "extra_info")
BATCH = ("data_sources", "solution_strs", "ground_truths", "extra_infos")
"""verl's keyword arguments: for one completion, or for all of them."""

_UNAVAILABLE = {
    "data": "a DataProto, verl's own batch",
    "reward_router_address": "the address of verl's own reward model server",
    "reward_model_tokenizer": "the tokenizer of verl's own reward model server",
}


@dataclass(frozen=True)
class VerlReward(FunctionAdapter):
    """Calls a function as verl does: by keyword, with the arguments that it takes, in a thread if it is not async.

    Example::

        rewards:
          - path: verl
            name: correct
            kwargs: {function: my_rewards.py:compute_score, ground_truth_column: answer, data_source: gsm8k}

    The function may be plain or async, for one completion or for a batch. It may return a number, a bool, a scalar
    tensor or None (unscored), or a dict with any of these as ``score``; the rest of the dict goes to the completions
    table. If it raises, `on_error` decides. verl's agent loop adds `num_turns` and `rollout_reward_scores` to
    `extra_info`; they are not available here.

    Raises:
        ValueError: It is not a function, or it needs what only verl has (a DataProto, verl's reward model server).
    """

    data_source_column: str = "data_source"
    data_source: str | None = None
    """The same for every row, instead of a column."""
    ground_truth_column: str | None = "reward_model.ground_truth"
    """A column, or a key in a column of dicts: verl's files hold ``reward_model: {ground_truth: ...}``. null passes
    None."""
    extra_info_column: str | None = None
    """A column of dicts. Default: the column `extra_info` if there is one, else an empty dict, as in verl."""
    reward_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """verl's `reward_kwargs`: passed in every call; they override other arguments of the same name."""

    library: ClassVar[str] = "verl"

    def __post_init__(self) -> None:
        super().__post_init__()
        taken, required, _ = keyword_parameters(self.target, self.subject)
        if missing := sorted(set(required) - {*(BATCH if self.batched else ONE), *self.reward_kwargs}):
            known = [f"{name} is {_UNAVAILABLE[name]}" for name in missing if name in _UNAVAILABLE]
            reason = f"not available here: {'; '.join(known)}" if known else "set them in reward_kwargs"
            raise ValueError(f"{self.subject} needs {', '.join(missing)} beside verl's arguments; {reason}")
        if not (self._accepts(ONE[1]) or self._accepts(BATCH[1])):
            raise ValueError(
                f"{self.subject} takes {', '.join(sorted(taken)) or 'nothing'}, but neither solution_str nor "
                "solution_strs, so it cannot see a completion. Add one of them."
            )

    @property
    def batched(self) -> bool:
        """Whether one call takes all completions."""
        return BATCH[1] in keyword_parameters(self.target, self.subject)[0]

    @property
    def required_columns(self) -> tuple[str, ...]:
        """Columns without which the function cannot be called."""
        source, _, truth, _ = BATCH if self.batched else ONE
        columns = [self.extra_info_column] if self.extra_info_column else []
        if self._accepts(source) and self.data_source is None and source not in self.reward_kwargs:
            columns.append(self.data_source_column)
        if self._accepts(truth) and self.ground_truth_column and truth not in self.reward_kwargs:
            columns.append(self.ground_truth_column.partition(".")[0])
        return tuple(columns)

    async def __call__(
        self, completions: Sequence[Completion], log_extra: LogExtra | None = None, **columns: Any
    ) -> list[Any]:
        """Score each completion."""
        results = await self.call_each([partial(self.target, **a) for a in self._arguments(completions, columns)])
        return self._scores(results[0] if self.batched else results, log_extra)

    def _accepts(self, name: str) -> bool:
        taken, _, any_name = keyword_parameters(self.target, self.subject)
        return name in taken or any_name

    def _arguments(self, completions: Sequence[Completion], columns: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the keyword arguments of each call; of the only call for a batched function."""
        lists = {
            name: self._values(one, completions, columns)
            for name, one in zip(BATCH if self.batched else ONE, ONE, strict=True)
            if self._accepts(name) and name not in self.reward_kwargs
        }
        if self.batched:
            return [{**lists, **self.reward_kwargs}]
        rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        return [{**row, **self.reward_kwargs} for row in rows]

    def _values(self, name: str, completions: Sequence[Completion], columns: Mapping[str, Any]) -> list[Any]:
        """Return one value per completion for one of verl's arguments."""
        nothing = [None] * len(completions)
        match name:
            case "solution_str":
                return [completion_text(completion) for completion in completions]
            case "extra_info":
                return _copies(columns.get(self.extra_info_column or "extra_info", nothing))
            case "ground_truth":
                return self._ground_truths(columns, nothing)
        if self.data_source is not None:
            return [self.data_source] * len(completions)
        return list(columns.get(self.data_source_column, nothing))

    def _ground_truths(self, columns: Mapping[str, Any], nothing: list[None]) -> list[Any]:
        """Return a column, or the values of one key in a column of dicts."""
        column, _, key = (self.ground_truth_column or "").partition(".")
        values = list(columns.get(column, nothing))
        for value in values if key else ():
            if not isinstance(value, Mapping) or key not in value:
                raise ValueError(
                    f"verl: an entry of {column!r} is not a dict with {key!r}: {value!r}. "
                    f"Change ground_truth_column ({self.ground_truth_column!r})."
                )
        return [value[key] for value in values] if key else values

    def _scores(self, results: Any, log_extra: LogExtra | None) -> list[Any]:
        """Return the reward of each result; number and types are checked by `read_returned`."""
        results = results.tolist() if hasattr(results, "tolist") else results
        if not isinstance(results, list | tuple):
            raise ValueError(
                f"{self.subject} returned a {type(results).__name__} for a batch. "
                "Return a list of one reward (or dict) per completion."
            )
        for result in results:
            if isinstance(result, Mapping) and "score" not in result:
                keys = ", ".join(map(str, result)) or "nothing"
                raise ValueError(f"{self.subject} returned a dict of {keys}. The key 'score' must hold the reward.")
        dicts = [result if isinstance(result, Mapping) else {} for result in results]
        log_extras(log_extra, ({k: v for k, v in one.items() if k != "score"} for one in dicts))
        return [result["score"] if isinstance(result, Mapping) else result for result in results]


def _copies(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Copy the dicts, because functions write into them; an empty one where a row has none."""
    for value in values:
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(f"verl: extra_info is {value!r}, not a dict. Set extra_info_column to a column of dicts.")
    return [dict(value or {}) for value in values]
