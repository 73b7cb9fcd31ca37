"""Reward functions written for verl: `compute_score(data_source, solution_str, ground_truth, extra_info)`.

Source: verl-project/verl, `docs/preparation/reward_function.rst` (the signature) and
`verl/experimental/reward_loop/reward_manager/naive.py` (how it is called, and that a dict holds the reward as
``score``); the batched form is that of `verl/workers/reward_manager/batch.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from grao.rewards.adapted_function import (
    LogExtra,
    call_each,
    check_concurrent,
    find_function,
    log_extras,
    parameters_of,
)
from grao.rewards.completions import Completion, completion_text
from grao.rewards.reward_function import RewardCallable, default_name

ONE = ("data_source", "solution_str", "ground_truth", "extra_info")
BATCH = ("data_sources", "solution_strs", "ground_truths", "extra_infos")
"""What verl hands to a function, by keyword: for one completion, or for all of them."""

_OUT_OF_REACH = {
    "data": "a DataProto, verl's own batch",
    "reward_router_address": "the address of verl's own reward model server",
    "reward_model_tokenizer": "the tokenizer of verl's own reward model server",
}


@dataclass(frozen=True)
class VerlReward:
    """Calls a function as verl does: by keyword, with the arguments that it takes, in a thread if it is not async.

    Example::

        rewards:
          - path: verl
            name: correct
            kwargs: {function: my_rewards.py:compute_score, ground_truth_column: answer, data_source: gsm8k}

    The function may be plain or async, for one completion or for a batch. It may return a number, a bool, a scalar
    tensor or None (unscored), or a dict with any of these as ``score``; what else the dict holds goes to the
    completions table. What it raises is an error of the reward: see `on_error`.

    Two things that verl adds to `extra_info`, `num_turns` and `rollout_reward_scores`, are of its agent loop and not
    here.

    Raises:
        ValueError: it is no function, or it needs what only verl has (a DataProto, verl's reward model server).
    """

    function: Any
    """Dotted path (`package.module:compute_score`), file (`folder/file.py:compute_score`), or the function itself."""
    data_source_column: str = "data_source"
    data_source: str | None = None
    """The same for every row, instead of a column."""
    ground_truth_column: str | None = "reward_model.ground_truth"
    """A column, or a key in a column of dicts: verl's files hold ``reward_model: {ground_truth: ...}``. null passes
    None."""
    extra_info_column: str | None = None
    """A column of dicts. Not set: the column `extra_info` where there is one, else an empty dict, as in verl."""
    reward_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """verl's `reward_kwargs`: given to every call, before anything else of the same name."""
    concurrent: int | None = None
    """Calls beside each other; by default 1 of a plain function, 16 of an async one."""

    def __post_init__(self) -> None:
        check_concurrent(self.concurrent, "verl")
        name = default_name(self._function)
        taken, required, _ = parameters_of(self._function, "verl")
        given = {*(BATCH if self.batched else ONE), *self.reward_kwargs}
        if missing := sorted(required - given):
            known = [f"{key} is {_OUT_OF_REACH[key]}" for key in missing if key in _OUT_OF_REACH]
            because = "; ".join(known) or "give them in reward_kwargs, or a default"
            raise ValueError(
                f"verl: {name!r} needs {', '.join(missing)}, besides {', '.join(ONE)} or {', '.join(BATCH)}: {because}"
            )
        if not (self._accepts(ONE[1]) or self._accepts(BATCH[1])):
            raise ValueError(
                f"verl: {name!r} takes {', '.join(sorted(taken)) or 'nothing'}, but neither solution_str nor "
                "solution_strs, so it could not see a completion"
            )

    @cached_property
    def _function(self) -> RewardCallable:
        return find_function(self.function, "verl")

    @property
    def batched(self) -> bool:
        """Whether one call takes all completions."""
        return BATCH[1] in parameters_of(self._function, "verl")[0]

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
        calls = [partial(self._function, **arguments) for arguments in self._arguments(completions, columns)]
        results = await call_each(self._function, calls, self.concurrent)
        return _scores(results[0] if self.batched else results, default_name(self._function), log_extra)

    def _accepts(self, name: str) -> bool:
        taken, _, anything = parameters_of(self._function, "verl")
        return name in taken or anything

    def _arguments(self, completions: Sequence[Completion], columns: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The keyword arguments of each call; of the only call, if it is a batch."""
        names = [name for name in (BATCH if self.batched else ONE) if self._accepts(name)]
        lists = {name: self._values(name, completions, columns) for name in names if name not in self.reward_kwargs}
        if self.batched:
            return [{**lists, **self.reward_kwargs}]
        rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        return [{**row, **self.reward_kwargs} for row in rows]

    def _values(self, name: str, completions: Sequence[Completion], columns: Mapping[str, Any]) -> list[Any]:
        """One value a completion for an argument of verl's."""
        nothing = [None] * len(completions)
        if name in ("solution_str", "solution_strs"):
            return [completion_text(completion) for completion in completions]
        if name in ("extra_info", "extra_infos"):
            return _dicts(columns.get(self.extra_info_column or "extra_info", nothing))
        if name in ("ground_truth", "ground_truths"):
            return _entries(columns, self.ground_truth_column, nothing) if self.ground_truth_column else nothing
        if self.data_source is not None:
            return [self.data_source] * len(completions)
        return list(columns.get(self.data_source_column, nothing))


def _scores(results: Any, name: str, log_extra: LogExtra | None) -> list[Any]:
    """The reward in each result. How many there are, and what they are, is checked where rewards are read."""
    results = results.tolist() if hasattr(results, "tolist") else results
    if not isinstance(results, list | tuple):
        raise ValueError(
            f"verl: {name!r} returned a {type(results).__name__} for a batch; a list of one reward "
            "(or dict) a completion was needed"
        )
    for result in results:
        if isinstance(result, Mapping) and "score" not in result:
            raise ValueError(
                f"verl: {name!r} returned a dict of {', '.join(map(str, result)) or 'nothing'}; "
                "the key 'score' must hold the reward"
            )
    dicts = [result if isinstance(result, Mapping) else {} for result in results]
    log_extras(log_extra, ({k: v for k, v in one.items() if k != "score"} for one in dicts))
    return [result["score"] if isinstance(result, Mapping) else result for result in results]


def _entries(columns: Mapping[str, Any], path: str, nothing: list[None]) -> list[Any]:
    """A column, or in a column of dicts the values of one key."""
    column, _, key = path.partition(".")
    values = columns.get(column, nothing)
    if not key:
        return list(values)
    for value in values:
        if not isinstance(value, Mapping) or key not in value:
            raise ValueError(
                f"verl: ground_truth_column is {path!r}, but an entry of {column!r} is no dict with {key!r}: {value!r}"
            )
    return [value[key] for value in values]


def _dicts(values: Sequence[Any]) -> list[dict[str, Any]]:
    """Copies, because functions write into them; an empty one where a row has none."""
    for value in values:
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(
                f"verl: extra_info is a dict, found {value!r}; set extra_info_column to a column of dicts"
            )
    return [dict(value or {}) for value in values]
