"""The known name nearest to an unknown one, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to this one, or None if none is similar.

    >>> nearest("learning_rat", ["seed", "learning_rate"])
    'learning_rate'
    """
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a suggestion to add to a message after an unknown name, or an empty string.

    >>> did_you_mean("betta", ["beta", "lam"])
    " (did you mean 'beta'?)"
    """
    close = nearest(name, known)
    return "" if close is None else f" (did you mean {close!r}?)"
