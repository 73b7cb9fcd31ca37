"""What stops a run when a reward goes wrong."""

from __future__ import annotations


class RewardError(RuntimeError):
    """A reward function raised or ran out of time; the message names it, the row and the completion."""


class RewardReturnError(RewardError, ValueError):
    """A reward function returned something that is no list of one finite number or None for each completion."""


class StopError(RewardError):
    """The run must stop whatever a reward's `on_error` says: no other member would fare better than this one."""


class EndpointRefusedError(StopError):
    """An endpoint wants another key, another model or another form of request; asking again would not help."""


class EndpointDownError(StopError):
    """An endpoint has answered nothing for too long; the run can be resumed when it is back."""


class CallTimeoutError(TimeoutError):
    """One call of a reward function took longer than its `timeout`."""
