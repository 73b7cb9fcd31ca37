"""What stops a run when a reward goes wrong."""

from __future__ import annotations


class RewardError(RuntimeError):
    """A reward function raised or ran out of time; the message names it, the row and the completion."""


class RewardReturnError(RewardError, ValueError):
    """A reward function returned something that is no list of one finite number or None for each completion."""


class CallTimeoutError(TimeoutError):
    """One call of a reward function took longer than its `timeout`."""
