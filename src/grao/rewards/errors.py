"""Errors that stop a run when a reward fails."""

from __future__ import annotations


class RewardError(RuntimeError):
    """A reward function raised or timed out; the message names it, the row and the completion."""


class RewardReturnError(RewardError, ValueError):
    """A reward function did not return a list of one finite number or None per completion."""


class StopError(RewardError):
    """The run must stop regardless of a reward's `on_error`: every other member would fail in the same way."""


class EndpointRefusedError(StopError):
    """An endpoint refuses the key, the model or the form of the request; sending it again would not help."""


class EndpointDownError(StopError):
    """An endpoint has answered nothing for too long; resume the run when it is back."""


class CallTimeoutError(TimeoutError):
    """One call of a reward function took longer than its `timeout`."""
