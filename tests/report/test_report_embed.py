"""JSON inside a page: nothing in it can end the script it stands in, and what is read back is what went in."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

from grao.report.embed import embedded_json, plain


def test_what_went_in_comes_out_and_no_markup_does(made: SimpleNamespace) -> None:
    """Oracle: json.loads gives the same texts back; the characters that HTML or old JavaScript act on are absent."""
    written = embedded_json({"texts": made.HOSTILE})
    assert json.loads(written) == {"texts": list(made.HOSTILE)}
    assert not set(written) & set("<>&\u2028\u2029\ud800\x00")
    written.encode("utf-8")


def test_numbers_are_finite_and_short() -> None:
    """Oracle: by hand, to six significant digits; what is not finite is null."""
    found = plain(
        [1 / 3, 1e-9 / 3, 12345678.0, 2.0, math.nan, math.inf, -math.inf, True, None, 10**20, ("a", {1: 2.5})]
    )
    assert found == [0.333333, 3.33333e-10, 12345700, 2, None, None, None, True, None, 10**20, ["a", {"1": 2.5}]]
