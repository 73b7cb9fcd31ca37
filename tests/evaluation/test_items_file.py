"""Items files return what was written, for any text."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from grao.evaluation import Item
from grao.evaluation.items_file import join_items, read_accounting, read_items, storable, write_items

PLAIN = Item(
    row=3,
    sample=1,
    prompt="3 + 4 =",
    answer=" 7",
    reference=" 7",
    category="sums",
    tokens=2,
    finish="stop",
    reward=0.1 + 0.2,
    reference_reward=None,
    scores={"math": 1.0, "judge": None},
    reference_scores={"math": 1.0, "judge": None},
    kl=1e-300,
    extras={"verdict": "1 > 2"},
)

ODD = [
    "",
    "\x00\x01\x7f",
    "\ufffd\ufffe\uffff",
    "🙂 e\u0301 \u202e\u2028",
    '"\\n\r\n\t',
    "[Judgment] 1 > 2",
    "a" * 100_000,
]


def test_items_come_back_as_they_were(tmp_path: Path) -> None:
    """Oracle: equality, floats to the bit; what has no value stays without one."""
    items = [PLAIN, replace(PLAIN, row=4, reference=None, category=None, kl=None, reward=None)]
    write_items(tmp_path / "a.parquet", items)
    assert read_items(tmp_path / "a.parquet") == items


@pytest.mark.parametrize("text", ODD)
def test_odd_answers_survive(text: str, tmp_path: Path) -> None:
    """Oracle: equality; pandas reads the same text."""
    item = replace(PLAIN, answer=text, prompt=text, reference=text, category=text, extras={"note": text})
    write_items(tmp_path / "a.parquet", [item])
    assert read_items(tmp_path / "a.parquet") == [item]
    assert pd.read_parquet(tmp_path / "a.parquet")["answer"].tolist() == [text]


def test_half_a_surrogate_pair_becomes_its_escape(tmp_path: Path) -> None:
    """Oracle: the escape by hand: UTF-8 has no bytes for it, and the answer must not stop the evaluation."""
    write_items(tmp_path / "a.parquet", [replace(PLAIN, answer="a\ud83db", category="\udfff", extras={"x": "\ud800"})])
    [found] = read_items(tmp_path / "a.parquet")
    assert (found.answer, found.category, found.extras) == ("a\\ud83db", "\\udfff", {"x": "\\ud800"})
    assert storable("é🙂") == "é🙂"


def test_a_conversation_is_stored_as_json(tmp_path: Path) -> None:
    """Oracle: JSON gives it back."""
    turns = [{"role": "user", "content": "naïve \ud83d"}]
    write_items(tmp_path / "a.parquet", [replace(PLAIN, prompt=turns)])
    [found] = read_items(tmp_path / "a.parquet")
    assert json.loads(str(found.prompt)) == turns


def test_parts_with_different_extras_are_joined(tmp_path: Path) -> None:
    """Oracle: by hand: numbers in one part and text in another are text; a column that a part lacks is empty there."""
    items = [
        replace(PLAIN, extras={"note": 1.5, "both": 2, "list": [1, "é"]}),
        replace(PLAIN, row=4, extras={"note": "a"}),
        replace(PLAIN, row=5, scores={}, reference_scores={}, extras={}),
    ]
    parts = [tmp_path / f"{place}.parquet" for place in range(4)]
    for part, item in zip(parts, items, strict=False):
        write_items(part, [item])
    write_items(parts[3], [])
    join_items(parts, tmp_path / "all.parquet")
    found = read_items(tmp_path / "all.parquet")
    assert [item.row for item in found] == [3, 4, 5]
    assert [item.extras["note"] for item in found] == ["1.5", "a", None]
    assert [item.extras["both"] for item in found] == [2.0, None, None]
    assert found[0].extras["list"] == '[1, "é"]'
    assert found[2].scores == {"math": None, "judge": None}


def test_the_accounting_of_a_part_is_in_its_header(tmp_path: Path) -> None:
    """Oracle: equality; nothing where nothing was given; the same bytes for the same items."""
    write_items(tmp_path / "a.parquet", [PLAIN], {"judge/cost": [0.25, 0.5]})
    write_items(tmp_path / "b.parquet", [PLAIN])
    assert read_accounting(tmp_path / "a.parquet") == {"judge/cost": [0.25, 0.5]}
    assert read_accounting(tmp_path / "b.parquet") == {}
    write_items(tmp_path / "c.parquet", [PLAIN])
    assert (tmp_path / "b.parquet").read_bytes() == (tmp_path / "c.parquet").read_bytes()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Oracle: the folder: neither the file nor what stood beside it."""
    with pytest.raises(Exception, match="int"):
        write_items(tmp_path / "a.parquet", [replace(PLAIN, tokens="many")])  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_pandas_needs_nothing_of_ours(tmp_path: Path) -> None:
    """Oracle: an interpreter without grao reads the columns."""
    write_items(tmp_path / "a.parquet", [PLAIN])
    code = "import pandas, sys; print(*pandas.read_parquet(sys.argv[1]).columns)"
    output = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path / "a.parquet")], capture_output=True, text=True, check=True
    )
    assert output.stdout.split()[-5:] == [
        *("score/math", "score/judge", "reference_score/math", "reference_score/judge", "extra/verdict")
    ]
