"""From any source to the same examples; rows, windows, counts and errors."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from grao.data import HH, Example, RowError, load_examples

ROWS = [{"prompt": f"{i} + 1 =", "reference": str(i + 1), "level": i} for i in range(5)]
EXPECTED = tuple(Example(i, f"{i} + 1 =", str(i + 1), None, {"level": i}) for i in range(5))
Write = Callable[..., Path]


def test_rows_in_memory_a_dataset_and_a_file_give_the_same_examples(jsonl: Write) -> None:
    """Oracle: the examples written by hand."""
    dataset = datasets.Dataset.from_list(ROWS)
    sources: list[Any] = [
        ROWS,
        dataset,
        dataset.to_iterable_dataset(),
        datasets.DatasetDict({"train": dataset, "test": dataset.select([0])}),
        jsonl(ROWS),
        str(jsonl(ROWS)),
        (dict(row) for row in ROWS),
    ]
    for source in sources:
        assert load_examples(source).examples == EXPECTED


def test_a_conversation_survives_every_way_of_storing_it(tmp_path: Path, jsonl: Write) -> None:
    """Oracle: the row itself, from JSON Lines, Parquet and memory."""
    prompt = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "3 + 4?", "name": "ann"}]
    rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": "7"}], "tags": ["a", "b"]}]
    parquet = tmp_path / "rows.parquet"
    datasets.Dataset.from_list(rows).to_parquet(str(parquet))
    expected = (Example(0, prompt, "7", None, {"tags": ["a", "b"]}),)
    for source in (rows, jsonl(rows), parquet, datasets.Dataset.from_list(rows)):
        assert load_examples(source).examples == expected  # type: ignore[arg-type]


def test_rows_are_numbered_through_several_files(jsonl: Write) -> None:
    """Oracle: the whole list in one."""
    parts = [jsonl(ROWS[:2], "a.jsonl"), jsonl(ROWS[2:], "b.jsonl")]
    assert load_examples(parts).examples == EXPECTED
    assert load_examples(str(parts[0].parent / "?.jsonl")).examples == EXPECTED
    assert load_examples(parts[0].parent).examples == EXPECTED


def test_skip_and_limit_are_a_window_and_rows_keep_their_number() -> None:
    """Oracle: a slice."""
    assert load_examples(ROWS, skip=1, limit=3).examples == EXPECTED[1:4]
    assert load_examples(ROWS, limit=99).examples == EXPECTED


def test_a_limit_reads_no_further(jsonl: Write) -> None:
    """Oracle: a broken line behind the window, which no error names."""
    path = jsonl(ROWS)
    path.write_text(path.read_text() + "{broken\n")
    assert load_examples(path, limit=5).examples == EXPECTED
    with pytest.raises(ValueError, match="line 6: not JSON"):
        load_examples(path)


def test_examples_are_a_sequence() -> None:
    """Oracle: a tuple's behaviour."""
    examples = load_examples(ROWS)
    assert (len(examples), examples[1], examples[-2:], list(examples)) == (
        5,
        EXPECTED[1],
        EXPECTED[3:],
        list(EXPECTED),
    )


def test_dropped_rows_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Oracle: by hand; rows keep their number in the source."""
    good, empty = "\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant:"
    rows = [{"chosen": text, "rejected": good} for text in (good, empty, good, empty)]
    with caplog.at_level(logging.WARNING, logger="grao.data"):
        examples = load_examples(rows, "hh")
    assert [example.row for example in examples] == [0, 2]
    assert examples.dropped == {"the last answer of chosen is empty": (1, 3)}
    assert examples.num_dropped == 2
    assert "dropped 2 of 4 rows: the last answer of chosen is empty (first: row 1)" in caplog.text


def test_a_format_is_a_name_with_options_or_an_object() -> None:
    """Oracle: the two must agree."""
    rows = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]
    by_name = load_examples(rows, format="hh", as_messages=True)
    assert by_name.examples == load_examples(rows, format=HH(as_messages=True)).examples
    assert by_name[0].prompt == [{"role": "user", "content": "a"}]


def test_a_users_own_format_reads_every_row() -> None:
    """Oracle: by hand."""

    class Words:
        def example(self, row: int, fields: Any) -> Example:
            if "q" not in fields:
                raise RowError("no q")
            return Example(row, fields["q"])

    assert load_examples([{"q": "a"}], Words()).examples == (Example(0, "a"),)
    with pytest.raises(ValueError, match=r"row 1 of the given list \(item 1\): no q \(rows with a problem: 1 of 2\)"):
        load_examples([{"q": "a"}, {}], Words())


def test_all_problems_are_counted_before_the_first_is_reported(jsonl: Write) -> None:
    """Oracle: by hand: rows 1 and 3 of 4, lines 2 and 4."""
    path = jsonl([{"prompt": "a"}, {"prompt": 7}, {"prompt": "b"}, {"text": "c"}])
    with pytest.raises(
        ValueError,
        match=r"row 1 of .*\(rows\.jsonl, line 2\): column 'prompt'.*int 7.*\(rows with a problem: 2 of 4\)",
    ):
        load_examples(path)


HH_EMPTY = {"chosen": "\n\nHuman: a\n\nAssistant:", "rejected": "\n\nHuman: a\n\nAssistant:"}
BAD: list[tuple[Any, dict[str, Any], str]] = [
    ([], {}, "the given list has no rows"),
    (ROWS, {"skip": 5}, "the given list has no rows after the first 5"),
    (ROWS, {"skip": -1}, "skip must be at least 0 and limit at least 1 or None, found skip=-1"),
    (ROWS, {"limit": 0}, "found skip=0, limit=0"),
    (ROWS, {"format": "alpaca"}, r"unknown format='alpaca'\. Use 'hh', 'gsm8k', or leave it out"),
    (
        ROWS,
        {"format": "gsm8k", "as_message": True},
        r"format 'gsm8k' has no option as_message\. Use keep_annotations",
    ),
    (ROWS, {"as_messages": True}, "unknown argument as_messages"),
    (ROWS, {"format": "hh", "columns": {"prompt": "q"}}, r"columns=\{'prompt': 'q'\} has no effect with a format"),
    (7, {}, "a source must be a path, a hub id or rows, found int 7"),
    ([{"prompt": "a"}, "b"], {}, "item 1 of the source must be a dict of columns, found str 'b'"),
    ({"test": ROWS}, {}, r"the source has no split 'train'\. Use 'test'"),
    ([HH_EMPTY], {"format": "hh"}, "all 1 rows were dropped: the last answer of chosen is empty"),
]


@pytest.mark.parametrize(("source", "arguments", "message"), BAD)
def test_an_invalid_source_or_argument_is_refused(source: Any, arguments: dict[str, Any], message: str) -> None:
    """Oracle: the mistake that was made."""
    with pytest.raises(ValueError, match=message):
        load_examples(source, **arguments)


def test_a_hub_id_is_read_by_the_datasets_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a stand-in for `datasets.load_dataset` that records its arguments."""
    calls: list[Any] = []

    def load_dataset(*args: Any, **kwargs: Any) -> datasets.Dataset:
        calls.append((args, kwargs))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    examples = load_examples("someone/sums", split="test[:5]", config="main", revision="v2")
    assert calls == [(("someone/sums", "main"), {"split": "test[:5]", "revision": "v2"})]
    assert examples.examples == EXPECTED


def test_the_error_of_an_unknown_name_covers_files_and_hub() -> None:
    """Oracle: the real `datasets` without a connection (the tests run offline)."""
    with pytest.raises(
        FileNotFoundError,
        match=r"'someone/no-such-rows' is not a local file or folder, and the hub did not provide it",
    ):
        load_examples("someone/no-such-rows")
