"""HH-RLHF transcripts: the split, the choices for rows that real data holds, and the real rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from grao.data import HH, Drop, Example, RowError, load_examples, validate_examples

TWO_TURNS = "\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: 3 + 4?\n\nAssistant:"
ROW = {"chosen": TWO_TURNS + " It is 7.", "rejected": TWO_TURNS + " Eight."}
OTHER = {"chosen": TWO_TURNS + " It is 7.", "rejected": "\n\nHuman: Hello\n\nAssistant: Eight."}
EMPTY = {"chosen": TWO_TURNS + " ", "rejected": TWO_TURNS + " Eight."}


def test_a_transcript_is_split_before_its_last_answer() -> None:
    """Oracle: by hand."""
    example = HH().example(3, {**ROW, "source": "x"})
    assert example == Example(3, TWO_TURNS, " It is 7.", " Eight.", {"source": "x", "turns": 2})


def test_as_messages_gives_the_same_turns_as_a_conversation() -> None:
    """Oracle: by hand."""
    prompt = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "3 + 4?"},
    ]
    assert HH(as_messages=True).example(3, ROW) == Example(3, prompt, "It is 7.", "Eight.", {"turns": 2})


def test_turns_of_one_speaker_are_joined_in_a_conversation() -> None:
    """Oracle: by hand; a label inside a line starts no turn, an empty turn adds nothing."""
    before = "\n\nHuman: A\n\nHuman: say Human: B\n\nAssistant: C\n\nAssistant:\n\nHuman: D\n\nAssistant:"
    example = HH(as_messages=True).example(0, {"chosen": before + " E", "rejected": before + " F"})
    assert isinstance(example, Example)
    assert example.prompt == [
        {"role": "user", "content": "A\n\nsay Human: B"},
        {"role": "assistant", "content": "C"},
        {"role": "user", "content": "D"},
    ]
    assert example.columns["turns"] == 3


def test_an_answer_in_two_turns_is_one_answer_in_a_conversation() -> None:
    """Oracle: by hand; the prompt must not end with the assistant."""
    before = "\n\nHuman: A\n\nAssistant: B\n\nAssistant:"
    example = HH(as_messages=True).example(0, {"chosen": before + " C", "rejected": before + " D"})
    assert example == Example(0, [{"role": "user", "content": "A"}], "B\n\nC", "B\n\nD", {"turns": 1})


@pytest.mark.parametrize("as_messages", [False, True])
def test_known_defects_are_dropped_with_their_reason(as_messages: bool) -> None:
    """Oracle: the two defects, written by hand."""
    hh = HH(as_messages=as_messages)
    assert hh.example(0, OTHER) == Drop("chosen and rejected differ before the last answer")
    assert hh.example(0, EMPTY) == Drop("the last answer of chosen is empty")
    assert hh.example(0, {"chosen": EMPTY["rejected"], "rejected": EMPTY["chosen"]}) == Drop(
        "the last answer of rejected is empty"
    )


def test_known_defects_are_errors_by_choice() -> None:
    """Oracle: the same rows; each message names its own choice."""
    with pytest.raises(RowError, match=r"differ before the last answer\. .*on_mismatch='drop'"):
        HH(on_mismatch="error").example(0, OTHER)
    with pytest.raises(RowError, match=r"the last answer of chosen is empty\. .*on_empty='drop'"):
        HH(on_empty="error").example(0, EMPTY)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chosen": ROW["chosen"]}, "column 'rejected' must be text, found the columns 'chosen'"),
        ({**ROW, "chosen": 3}, "column 'chosen' must be text, found int 3"),
        ({**ROW, "chosen": "It is 7."}, "column 'chosen' must start with .* found str 'It is 7.'"),
        ({**ROW, "chosen": "Hello" + TWO_TURNS}, "must start with"),
        ({**ROW, "chosen": ROW["chosen"] + "\n\nHuman: Thanks"}, "end with an"),
    ],
)
def test_a_row_without_transcripts_is_an_error(fields: dict[str, Any], message: str) -> None:
    """Oracle: the defect that was written into the row."""
    with pytest.raises(RowError, match=message):
        HH().example(0, fields)


def test_an_unknown_choice_is_an_error() -> None:
    """Oracle: by hand."""
    with pytest.raises(ValueError, match=r"on_empty='skip' is not a choice\. Use one of 'drop', 'error'"):
        HH(on_empty="skip")  # type: ignore[arg-type]


def real_rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.mark.parametrize(("split", "rows", "mismatches", "empty"), [("train", 1500, 1, 4), ("test", 300, 1, 0)])
def test_the_real_rows(shared_data: Path, split: str, rows: int, mismatches: int, empty: int) -> None:
    """Oracle: the split written again with `rfind`, row by row; counts from a plain reading of the file."""
    label = "\n\nAssistant:"
    raw = real_rows(shared_data / "hh-rlhf" / "harmless-base" / f"{split}.jsonl.gz")
    assert len(raw) == rows
    examples = load_examples(shared_data / "hh-rlhf" / "harmless-base", "hh", split)
    dropped = {row for places in examples.dropped.values() for row in places}
    expected_mismatches = {
        i
        for i, r in enumerate(raw)
        if r["chosen"][: r["chosen"].rfind(label)] != r["rejected"][: r["rejected"].rfind(label)]
    }
    expected_empty = {
        i for i, r in enumerate(raw) if any(not text[text.rfind(label) + len(label) :].strip() for text in r.values())
    }
    assert (len(expected_mismatches), len(expected_empty)) == (mismatches, empty)
    assert dropped == expected_mismatches | expected_empty
    assert len(examples) == rows - len(dropped) == rows - examples.num_dropped
    for example in examples:
        source = raw[example.row]
        assert isinstance(example.prompt, str)
        assert example.prompt.endswith(label)
        assert (example.prompt + str(example.reference)) == source["chosen"]
        assert (example.prompt + str(example.rejected)) == source["rejected"]
        assert label not in str(example.reference)
        assert example.columns == {"turns": example.prompt.count("\n\nHuman:")}


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_real_rows_as_conversations(shared_data: Path, split: str) -> None:
    """Oracle: the text form of the same rows: same rows kept, same words in the same order; roles alternate."""
    folder = shared_data / "hh-rlhf" / "harmless-base"
    text, chat = (load_examples(folder, "hh", split, as_messages=choice) for choice in (False, True))
    assert text.dropped == chat.dropped
    validate_examples(chat, needs_reference=True, needs_rejected=True)
    for one, other in zip(text, chat, strict=True):
        assert isinstance(one.prompt, str)
        assert isinstance(other.prompt, list)
        assert [turn["role"] for turn in other.prompt] == ["user", "assistant"] * (len(other.prompt) // 2) + ["user"]
        spoken = " ".join(turn["content"] for turn in other.prompt) + " " + str(other.reference)
        written = (one.prompt + str(one.reference)).replace("\n\nHuman:", " ").replace("\n\nAssistant:", " ")
        assert spoken.split() == written.split()


def test_the_real_rows_can_be_refused(shared_data: Path) -> None:
    """Oracle: row 86 is the first empty one of train, counted by hand; four are."""
    with pytest.raises(
        ValueError, match=r"row 86 of .*line 87\): the last answer.*\(rows with a problem: 4 of 1500\)"
    ):
        load_examples(shared_data / "hh-rlhf" / "harmless-base", "hh", on_empty="error")
