"""The known name that was probably meant."""

from __future__ import annotations

import pytest

from grao.spelling import did_you_mean, nearest

KNOWN = ("beta", "lam", "learning_rate", "length")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("betta", "beta"), ("learning_rat", "learning_rate"), ("lenght", "length"), ("temperature", None), ("", None)],
)
def test_the_nearest_name_is_found_or_none(name: str, meant: str | None) -> None:
    """Oracle: by hand. A slip of the pen finds its name; another word finds nothing."""
    assert nearest(name, KNOWN) == meant
    assert nearest(name, iter(KNOWN)) == meant
    assert did_you_mean(name, KNOWN) == ("" if meant is None else f" (did you mean '{meant}'?)")


def test_of_several_the_most_alike_is_meant() -> None:
    """Oracle: by hand, twice the letters in common over those of both: slips 8/9, skip 6/8, slip_all 8/12."""
    assert nearest("slip", ["slip_all", "skip", "slips"]) == "slips"
    assert nearest("slip", ["slip_all", "skip"]) == "skip"
