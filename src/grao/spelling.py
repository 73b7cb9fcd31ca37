"""The known name that was probably meant, for messages about an unknown one.

On the lowest floor, because objectives and configurations both answer for names, and neither's room is about that.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is spelled most like this one; None where none comes near.

    >>> nearest("learning_rat", ["seed", "learning_rate"])
    'learning_rate'
    """
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to add to a message after an unknown name; nothing where no known name comes near.

    >>> did_you_mean("betta", ["beta", "lam"])
    " (did you mean 'beta'?)"
    """
    close = nearest(name, known)
    return "" if close is None else f" (did you mean {close!r}?)"
