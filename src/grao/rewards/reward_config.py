"""The configuration of one reward."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from grao.rewards.reward_function import OnError, RewardFunction
from grao.rewards.reward_loading import load_reward


@dataclass(frozen=True)
class RewardConfig:
    """One reward of the weighted sum."""

    path: str
    """A built-in's name, a dotted path `package.module:function`, or a sequence-classification model."""
    name: str | None = None
    """Name in metrics: `rewards/{name}/mean`. Default: the function's own name."""
    weight: float = 1.0
    """A member's reward is Σ weight · value over the rewards that scored it."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Arguments for the class or function that `path` names."""
    on_error: OnError = "raise"
    """`raise` stops the run; `unscored` leaves the affected members out of the statistics, counted and logged."""
    timeout: float | None = None
    """Seconds per call."""
    comparison: bool | None = None
    """The reward compares with the reference, so R(y, y) = 0 by definition. Default: as the function declares."""

    def load(self) -> RewardFunction:
        """Load the reward function.

        Raises:
            ValueError: See `load_reward`.
        """
        given = {"name": self.name, "comparison": self.comparison}
        settings = {name: value for name, value in given.items() if value is not None}
        return load_reward(
            self.path, self.kwargs, weight=self.weight, on_error=self.on_error, timeout=self.timeout, **settings
        )
