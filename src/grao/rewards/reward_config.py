"""A section of a configuration that names a reward."""

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
    """In metrics: `rewards/{name}/mean`. The function's own by default."""
    weight: float = 1.0
    """A member's reward is Σ weight · value over the rewards that scored it."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Given to the class or function that `path` names."""
    on_error: OnError = "raise"
    """`raise` stops the run; `unscored` takes the members concerned out of the statistics, counted and logged."""
    timeout: float | None = None
    """Seconds one call may take."""
    comparison: bool | None = None
    """The reward compares with the reference, so R(y, y) = 0 by definition. The function's own word by default."""

    def load(self) -> RewardFunction:
        """The reward it names.

        Raises:
            ValueError: as `load_reward`.
        """
        settings: dict[str, Any] = {"weight": self.weight, "on_error": self.on_error, "timeout": self.timeout}
        if self.name is not None:
            settings["name"] = self.name
        if self.comparison is not None:
            settings["comparison"] = self.comparison
        return load_reward(self.path, self.kwargs, **settings)
